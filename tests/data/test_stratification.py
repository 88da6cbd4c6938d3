import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_hpo.data.stratification import stratify

SHARES = np.array([0.15, 0.15, 0.7])


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_splits_have_their_share_of_every_single_label(classes: list[int], unlabelled: int) -> None:
    labels = np.zeros((len(classes), 4), bool)
    labels[np.arange(len(classes)), classes] = True
    splits = stratify(labels, SHARES, len(classes) + unlabelled)
    sizes = np.bincount(splits, minlength=3)
    assert sizes.sum() == len(classes) + unlabelled
    assert (np.abs(sizes - SHARES * len(splits)) < 4 + 1).all()  # the labels are rounded one by one
    for label in range(4):
        own = np.bincount(splits[: len(labels)][labels[:, label]], minlength=3)
        assert (np.abs(own - SHARES * own.sum()) < 1).all()


def _distance(labels: NDArray[np.bool_], splits: NDArray[np.int64]) -> float:
    """Mean difference between the share that a split has of a label, and the share that it should have."""
    shares = np.array([labels[splits == split].sum(axis=0) / labels.sum(axis=0) for split in range(3)])
    return float(np.abs(shares - SHARES[:, None]).mean())


def test_several_labels_are_stratified_far_better_than_by_chance() -> None:
    frequencies = np.array([0.03, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3])
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = generator.random((600, 8)) < frequencies
        chance = np.repeat([0, 1, 2], [90, 90, 420])
        generator.shuffle(chance)
        assert _distance(labels, stratify(labels, SHARES, 600)) < _distance(labels, chance) / 2


def test_rare_label_of_five_examples_is_in_every_split() -> None:
    labels = np.zeros((100, 2), bool)
    labels[:5, 0] = labels[3:80, 1] = True
    assert np.bincount(stratify(labels, SHARES, 100)[:5], minlength=3).tolist() == [1, 1, 3]


@given(st.lists(st.frozensets(st.integers(0, 4)), min_size=20, max_size=80), st.integers(0, 80))
def test_additional_example_moves_few_others(drawn: list[frozenset[int]], place: int) -> None:
    rows = sorted(drawn, key=len, reverse=True)
    labelled = sum(bool(row) for row in rows)
    labels = np.array([[label in row for label in range(5)] for row in rows[:labelled]], bool).reshape(-1, 5)
    before = stratify(labels, SHARES, len(rows))
    at = labelled + place % (len(rows) - labelled + 1)  # an example without a label
    after = np.delete(stratify(labels, SHARES, len(rows) + 1), at)
    assert (before != after).sum() <= 6
