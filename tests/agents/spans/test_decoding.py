import math

import pytest

from lightning_hpo.agents.spans.decoding import Decoding


@pytest.mark.parametrize(
    ("decoding", "threshold"),
    [
        (Decoding(null_threshold=-1.5), -1.5),
        (Decoding(null_policy="calibrated", null_threshold=2.0, null_ratio=0.1), 2.0),
        (Decoding(null_policy="ratio", null_threshold=2.0, null_ratio=0.5), 0.0),
        (Decoding(null_policy="ratio", null_ratio=0.8), -math.log(4)),
    ],
)
def test_each_policy_comes_down_to_a_threshold(decoding: Decoding, threshold: float) -> None:
    assert decoding.threshold == pytest.approx(threshold)


def test_the_policy_none_is_above_all_odds_but_infinite_ones() -> None:
    assert 1e30 < Decoding(null_policy="none").threshold < math.inf


def test_only_several_answers_and_softmax_need_several_candidates() -> None:
    assert Decoding(n_best=30).candidates == Decoding(n_best=30, rank="product").candidates == 1
    assert Decoding(n_best=30, rank="softmax").candidates == Decoding(n_best=30, top_k=2).candidates == 30
    assert Decoding(n_best=5, top_k=8).candidates == 8


def test_every_flag_is_checked() -> None:
    wrong = Decoding(0, float("nan"), "always", 1.0, 0, 1.1, 0, "max")  # type: ignore[arg-type]
    assert [line.split(":")[0].removeprefix("--model.decoding.") for line in wrong.problems()] == [
        "max_answer_tokens",
        "null_threshold",
        "null_ratio",
        "top_k",
        "overlap",
        "n_best",
        "null_policy",
        "rank",
    ]
    assert wrong.problems()[-1] == "--model.decoding.rank: got 'max'; there are sum, product, softmax"
