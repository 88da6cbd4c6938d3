import pytest

from lightning_hpo.data.split_sizes import (
    SplitSize,
    recorded_sizes,
    sizes_line,
    split_lines,
    split_problems,
    split_sizes,
)

SPLITS = {"train": ("a", "b", "c"), "val": ("d", "e"), "test": ("f",)}
POSITIVES = [("a", "SAD"), ("b", "SAD"), ("b", "TIRED"), ("d", "SAD"), ("f", "TIRED")]
ALL = ("train", "val", "test")


def test_posts_and_positives_are_counted_by_split_and_criterion() -> None:
    sizes = split_sizes(SPLITS, POSITIVES, ["SAD", "TIRED"])
    assert sizes == {
        "train": SplitSize(3, {"SAD": 2, "TIRED": 1}),
        "val": SplitSize(2, {"SAD": 1, "TIRED": 0}),
        "test": SplitSize(1, {"SAD": 0, "TIRED": 1}),
    }
    assert sizes_line(sizes) == (
        "train 3 posts with 3 positives, val 2 posts with 1 positives, test 1 posts with 1 positives"
    )
    assert split_lines("stratified", sizes) == [
        f"split (stratified): {sizes_line(sizes)}",
        "criteria without positives, whose scores mean nothing there: val: TIRED; test: SAD",
    ]
    assert recorded_sizes({"val": {"posts": 2, "positives": {"SAD": 1, "TIRED": 0}}}) == {"val": sizes["val"]}


def _sizes(train: int, val: int, test: int) -> dict[str, SplitSize]:
    """Return sizes of splits of ten posts with these positives of SAD and none of TIRED."""
    return {
        name: SplitSize(10, {"SAD": count, "TIRED": 0}) for name, count in zip(ALL, (train, val, test), strict=True)
    }


@pytest.mark.parametrize("negatives", [True, False])
def test_split_without_positives_is_a_problem_that_says_what_to_change(negatives: bool) -> None:
    sizes = _sizes(2, 0, 1)
    (problem,) = split_problems(sizes, negatives=negatives, splits=ALL)
    assert "the validation split cannot measure any criterion" in problem
    assert "its 10 posts have SAD 0 positives (3 in all splits), TIRED 0 positives (0 in all splits)" in problem
    assert "change --data.val_fraction or --data.seed" in problem
    assert split_problems(sizes, negatives=negatives, splits=("train", "test")) == []


def test_split_without_negatives_is_a_problem_if_the_scores_need_them() -> None:
    sizes = _sizes(9, 9, 10)
    (problem,) = split_problems(sizes, negatives=True, splits=ALL)
    assert "the test split" in problem
    assert "add posts that meet one and posts that do not" in problem
    assert split_problems(sizes, negatives=False, splits=ALL) == []


def test_one_criterion_that_can_be_measured_is_enough() -> None:
    sizes = {name: SplitSize(4, {"ALL": 4, "NONE": 0, "SOME": 1}) for name in ALL}
    assert split_problems(sizes, negatives=True, splits=ALL) == []


def test_no_positive_at_all_is_one_problem() -> None:
    (problem,) = split_problems(_sizes(0, 0, 0), negatives=True, splits=ALL)
    assert "no post is positive for any criterion" in problem
