from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_f1_score

from lightning_hpo.agents.arrays import read_arrays, write_arrays
from lightning_hpo.agents.post_scores import PostScores, read_post_scores, score_of, text_keys, write_post_scores


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_macro_f1_is_that_of_torchmetrics(pairs: list[tuple[int, bool, bool]]) -> None:
    posts, answers, met = zip(*pairs, strict=True)
    found = PostScores.of_labels(text_keys([f"p{post}" for post in posts]), answers, met)
    expected = multiclass_f1_score(torch.tensor(answers).long(), torch.tensor(met).long(), 2, average="macro")
    assert found.score == pytest.approx(float(expected), abs=1e-6)
    assert len(found.keys) == len(set(posts))
    assert sorted(set(found.keys.tolist())) == found.keys.tolist()


def test_mean_counts_pairs_and_not_posts() -> None:
    found = PostScores.of_means(text_keys(["a", "b", "a"]), [1.0, 0.0, 0.5])
    assert found.score == 0.5
    assert score_of(found) == score_of(0.5)


def test_joint_metric_is_the_mean_of_both() -> None:
    labels = PostScores.of_labels([3, 1, 2], [True, False, True], [True, True, False])
    means = PostScores.of_means([2, 5], [1.0, 0.25])
    joint = PostScores.joint(labels, means)
    assert joint.keys.tolist() == [1, 2, 3, 5]
    assert joint.score == pytest.approx((labels.score + means.score) / 2)


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    scores = {"0": PostScores.of_means([5, 3], [1.0, 0.25]), "never met": PostScores.of_labels([1], [True], [False])}
    write_post_scores(path, scores)
    found = read_post_scores(path)
    assert list(found) == list(scores)
    for name, each in found.items():
        assert each.formula == scores[name].formula
        np.testing.assert_array_equal(each.keys, scores[name].keys)
        np.testing.assert_array_equal(each.sums, scores[name].sums)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\0" * len(whole)):
        path.write_bytes(damaged)
        assert read_post_scores(path) == {}
    assert read_post_scores(tmp_path / "missing") == {}


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        *(("sums_0", [[1, 0, 0, 0]]), ("sums_0", [[np.nan, 0.0, 0.0, 0.0]]), ("sums_0", [[1.0, 0.0]]), ("sums_0", [])),
        *(("sums_0", [["a", "b", "c", "d"]]), ("keys_0", [0.5]), ("keys_0", [3, 2]), ("keys_0", 3)),
        *(("formula_0", "other"), ("formula_0", [1]), ("names", ["a", "b"])),
    ],
)
def test_file_with_other_types_and_shapes_counts_as_damaged(tmp_path: Path, changed: str, value: Any) -> None:
    path = tmp_path / "scores.npz"
    write_post_scores(path, {"a": PostScores.of_labels([1], [True], [False])})
    found = read_arrays(path)
    assert found is not None
    assert read_post_scores(path).keys() == {"a"}
    write_arrays(path, found | {changed: np.array(value)})
    assert read_post_scores(path) == {}


def test_keys_are_the_same_in_every_process() -> None:
    assert text_keys(["a", "b", "a"]) == [4681665781835383343, -8902839231844102283, 4681665781835383343]
    assert len(text_keys(["\ud800"])) == 1
