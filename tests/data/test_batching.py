from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.batching import Draw, TrainBatchSampler, pair_batches

LENGTHS = np.random.default_rng(0).integers(5, 200, 56).repeat(9)[:500] + np.arange(500) % 9
KEPT = np.arange(0, 500, 5)


# Nine windows of a post, of similar lengths.
POSTS = np.arange(500) // 9


def _sampler(drawn: int = 130, batch_size: int = 16, seed: int = 3, *, spread: bool = True) -> TrainBatchSampler:
    return TrainBatchSampler(
        LENGTHS.take,
        windows=500,
        kept=KEPT,
        drawn=drawn,
        batch_size=batch_size,
        seed=seed,
        posts=POSTS.take if spread else None,
    )


def _repeats(sampler: TrainBatchSampler) -> float:
    """Return how many windows of a batch, on average, are of a post that it has already."""
    batches = [POSTS[[draw.index for draw in batch]] for batch in sampler.batches(0)]
    return float(np.mean([len(posts) - len(set(posts.tolist())) for posts in batches]))


def _indices(batches: Iterable[list[Draw]]) -> list[int]:
    return [draw.index for batch in batches for draw in batch]


def test_epoch_has_all_kept_windows_and_new_draws() -> None:
    first, second = (_indices(_sampler().batches(epoch)) for epoch in (0, 1))
    for indices in (first, second):
        assert len(indices) == len(set(indices)) == 230
        assert set(KEPT) <= set(indices)
    assert 30 < len(set(first) & set(second) - set(KEPT)) < 100
    assert _indices(_sampler(seed=4).batches(0)) != first


def test_epochs_have_the_same_number_of_batches() -> None:
    sampler = _sampler()
    assert {len(list(sampler.batches(epoch))) for epoch in range(5)} == {len(sampler)} == {15}
    assert {draw.epoch for batch in sampler.batches(4) for draw in batch} == {4}


@pytest.mark.parametrize(("spread", "most"), [(False, 25), (True, 65)])
def test_batches_have_windows_of_similar_length(spread: bool, most: int) -> None:
    ranges = [np.ptp(LENGTHS[[draw.index for draw in batch]]) for batch in _sampler(spread=spread).batches(0)]
    assert np.mean(ranges) < most


def test_windows_of_a_post_are_spread_over_batches() -> None:
    shuffled = np.random.default_rng(0).permutation(500)[:230]
    by_chance = float(np.mean([16 - len(set(POSTS[part].tolist())) for part in np.array_split(shuffled, 15)]))
    assert _repeats(_sampler(spread=False)) > 3 * by_chance
    assert _repeats(_sampler()) < by_chance


def test_sizes_of_spread_batches_differ_by_one_at_most() -> None:
    assert {len(batch) for batch in _sampler().batches(0)} == {15, 16}
    assert {len(batch) for batch in _sampler(spread=False).batches(0)} == {6, 16}


def test_no_short_block_is_left_at_the_end() -> None:
    lengths = np.random.default_rng(1).integers(5, 200, 51 * 8)
    sampler = TrainBatchSampler(lengths.take, windows=408, kept=np.arange(408), drawn=0, batch_size=8, seed=3)
    for epoch in range(3):
        spread = [np.ptp(lengths[[draw.index for draw in batch]]) for batch in sampler.batches(epoch)]
        assert len(spread) == 51
        assert max(spread) < 50


def test_start_at_affects_only_the_next_pass() -> None:
    sampler = _sampler()
    sampler.start_at(2, 5)
    sampler.set_epoch(2)
    assert list(sampler) == list(sampler.batches(2))[5:]
    assert list(sampler) == list(sampler.batches(2))


def test_start_after_the_last_batch_is_the_next_epoch() -> None:
    sampler = _sampler()
    sampler.start_at(2, len(sampler))
    assert list(sampler) == list(sampler.batches(3))


def test_another_epoch_resets_the_start() -> None:
    sampler = _sampler()
    sampler.start_at(2, 5)
    sampler.set_epoch(3)
    assert list(sampler) == list(sampler.batches(3))


@pytest.mark.parametrize(("drawn", "expected"), [(0, 7), (10_000, 32)])
def test_draws_are_limited_by_the_windows(drawn: int, expected: int) -> None:
    assert len(list(_sampler(drawn=drawn))) == len(_sampler(drawn=drawn)) == expected


@given(
    st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), max_size=40),
    st.integers(1, 12),
    st.none() | st.integers(1, 500),
)
def test_batches_have_whole_pairs_and_are_bounded(lengths: list[list[int]], windows: int, tokens: int | None) -> None:
    longest, counts = (np.array([of(pair) for pair in lengths], np.int64) for of in (max, len))
    batches = pair_batches(longest, counts, windows, tokens)
    order = [pair for batch in batches for pair in batch.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [longest[pair] for pair in order] == sorted(longest, reverse=True)
    for batch in batches:
        made = sum(len(lengths[pair]) for pair in batch)
        assert len(batch) == 1 or made <= windows
        assert len(batch) == 1 or tokens is None or made * longest[batch].max() <= tokens
