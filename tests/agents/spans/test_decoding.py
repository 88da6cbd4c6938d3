import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.spans.decoding import (
    Decoding,
    PairSpans,
    Rank,
    answer_rows,
    decode_pairs,
    with_whole_graphemes,
)
from lightning_hpo.data.sentences import sentence_ranges
from lightning_hpo.exceptions import InputError, NotFiniteError

BEFORE, ROOM, STEP = 2, 5, 3  # tokens before the post, post tokens in a window, tokens from window to window
Found = tuple[float, tuple[int, int]]
# Tokens of two characters. Sentences end after tokens 0, 3, 4 and 9; the mark after token 9 belongs to none.
TEXT = "a. bb bb b. c. dd dd dd dd d. !! ee ee ee"


def _offsets(windows: list[int]) -> Tensor:
    """Return the offsets of windows, given by their index in the post. Tokens have two characters and a space."""
    offsets = torch.full((len(windows), BEFORE + ROOM + 1, 2), -1)
    for row, number in enumerate(windows):
        place = (torch.arange(ROOM) + number * STEP) * 3
        offsets[row, BEFORE : BEFORE + ROOM] = torch.stack((place, place + 2), dim=-1)
    return offsets


def _probable(side: Tensor, allowed: list[int], rank: str) -> dict[int, float]:
    """Return the score of each token in float64."""
    values = {place: float(side[place]) for place in [0, *allowed]}
    if rank != "product":
        return values
    total = math.fsum(math.exp(value) for value in values.values())
    return {place: math.log(math.exp(value) / total) for place, value in values.items()}


def _all_spans(logits: Tensor, offsets: Tensor, decoding: Decoding) -> tuple[list[Found], float]:
    """Return every legal span of the windows of a pair, best first, and the score of "no evidence"."""
    found, null = [], math.inf
    for window in range(len(logits)):
        allowed = [place for place, (start, _) in enumerate(offsets[window].tolist()) if start >= 0]
        starts, ends = (_probable(logits[window, :, side], allowed, decoding.rank) for side in (0, 1))
        null = min(null, starts[0] + ends[0])
        for i in allowed:
            for j in allowed:
                if i <= j < i + decoding.max_answer_tokens:
                    chars = int(offsets[window, i, 0]), int(offsets[window, j, 1])
                    found.append((starts[i] + ends[j], chars))
    return sorted(found, key=lambda span: -span[0]), null  # a stable sort: ties keep their order


def _iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    both = set(range(*one)) | set(range(*other))
    return len(set(range(*one)) & set(range(*other))) / len(both)


def _brute_force(logits: Tensor, offsets: Tensor, decoding: Decoding) -> list[Found]:
    found, null = _all_spans(logits, offsets, decoding)
    if decoding.top_k == 1 and decoding.rank != "softmax":
        return [(found[0][0] - null, _snapped(found[0][1], decoding))]
    found = [(score, _snapped(chars, decoding)) for score, chars in found[: max(decoding.n_best, decoding.top_k)]]
    if decoding.rank == "softmax":
        shares = [math.fsum(math.exp(score) for score, other in found if other == chars) for _, chars in found]
        found = sorted(
            ((math.log(share), chars) for share, (_, chars) in zip(shares, found, strict=True)), key=lambda s: -s[0]
        )
    kept: list[Found] = []
    for score, chars in found:
        if all(chars != other and _iou(chars, other) <= decoding.overlap for _, other in kept):
            kept.append((score, chars))
    return [(score - null, chars) for score, chars in kept[: decoding.top_k]]


def _snapped(chars: tuple[int, int], decoding: Decoding) -> tuple[int, int]:
    touched = [own for own in sentence_ranges(TEXT) if set(range(*own)) & set(range(*chars))]
    return (touched[0][0], touched[-1][1]) if decoding.snap == "sentence" and touched else chars


def _found(spans: PairSpans, pair: int) -> list[Found]:
    columns = (spans.score[pair].tolist(), spans.start[pair].tolist(), spans.end[pair].tolist())
    return [(score, (start, end)) for score, start, end in zip(*columns, strict=True) if score > -math.inf]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.builds(
        Decoding,
        max_answer_tokens=st.integers(1, 6),
        top_k=st.sampled_from([1, 1, 2, 5]),
        overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
        n_best=st.integers(1, 60),
        rank=st.sampled_from(["sum", "product", "softmax"]),
        snap=st.sampled_from(["none", "sentence"]),
    ),
    st.booleans(),
)
def test_answers_match_a_search_over_all_legal_spans(
    seed: int, windows: list[int], decoding: Decoding, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pair_index = torch.tensor([pair for pair, count in enumerate(windows) for _ in range(count)])
    offsets = _offsets([number for count in windows for number in range(count)])
    logits = 2 * torch.randn(len(offsets), BEFORE + ROOM + 1, 2, generator=generator)
    if ties and decoding.rank == "sum":
        logits = logits.round()
    spans = decode_pairs(logits, offsets, pair_index, len(windows), decoding, [TEXT] * len(windows))
    assert spans.start.shape[1] == decoding.top_k
    for pair in range(len(windows)):
        own = pair_index == pair
        expected = _brute_force(logits[own], offsets[own], decoding)
        found = _found(spans, pair)
        assert [chars for _, chars in found] == [chars for _, chars in expected]
        assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)


def _row(decoding: Decoding, logits: Tensor, windows: int = 1) -> dict[str, Any]:
    spans = decode_pairs(logits, _offsets(list(range(windows))), torch.zeros(windows).long(), 1, decoding)
    (row,) = answer_rows(spans, decoding.threshold)
    return row


def _two_pieces() -> Tensor:
    """One window. Its first token and its last two are evidence. The first beats "no evidence" by 3."""
    logits = torch.full((1, BEFORE + ROOM + 1, 2), -9.0)
    logits[0, 0] = 0.5
    logits[0, BEFORE] = 2.0
    logits[0, BEFORE + 3, 0] = logits[0, BEFORE + 4, 1] = 1.5
    return logits


def test_by_default_the_best_span_must_beat_no_evidence() -> None:
    logits = _two_pieces()
    assert _row(Decoding(), logits) == {"start": 0, "end": 2, "score": 3.0, "null": False}
    logits[0, 0] = 2.1
    assert _row(Decoding(), logits)["null"] is True


@pytest.mark.parametrize(
    ("settings", "null"),
    [
        ({"null_threshold": -2.9}, False),
        ({"null_threshold": -3.1}, True),
        ({"null_policy": "none", "null_threshold": -3.1}, False),
        ({"null_policy": "calibrated", "null_threshold": -3.1}, True),
        ({"null_policy": "ratio", "null_ratio": 0.95}, False),  # odds of e^3 are a probability of .9526
        ({"null_policy": "ratio", "null_ratio": 0.96}, True),
    ],
)
def test_each_null_policy_decides(settings: dict[str, Any], null: bool) -> None:
    row = _row(Decoding(**settings), _two_pieces())
    assert row["null"] is null
    assert (row["start"], row["end"], row["score"]) == (0, 2, 3.0)


def test_max_answer_tokens_limits_the_length() -> None:
    logits = _two_pieces()
    logits[0, BEFORE, 1] = -9.0
    assert _row(Decoding(max_answer_tokens=5), logits)["end"] == 14
    assert _row(Decoding(max_answer_tokens=4), logits)["start"] == 9


def test_further_answers_must_pass_the_null_policy() -> None:
    several = Decoding(max_answer_tokens=2, top_k=3, overlap=0.3)
    first, second = {"start": 0, "end": 2, "score": 3.0}, {"start": 9, "end": 14, "score": 2.0}
    assert "answers" not in _row(replace(several, top_k=1), _two_pieces())
    row = _row(several, _two_pieces())
    assert row == {**first, "null": False, "answers": [first, second]}
    assert _row(replace(several, null_threshold=-2.5), _two_pieces())["answers"] == [first]
    assert _row(replace(several, null_threshold=-3.5), _two_pieces()) == {**first, "null": True, "answers": []}
    assert len(_row(replace(several, null_policy="none"), _two_pieces())["answers"]) == 3


def test_more_overlap_allows_more_answers() -> None:
    def count(overlap: float) -> int:
        decoding = Decoding(null_policy="none", top_k=20, n_best=20, overlap=overlap)
        return len(_row(decoding, _two_pieces())["answers"])

    assert count(0.0) < count(0.5) < count(0.9) <= count(1.0) == 15


def test_more_candidates_allow_more_answers() -> None:
    logits = _two_pieces()
    few = Decoding(top_k=2, n_best=2, overlap=0.2, null_policy="none")
    # The second best span covers both pieces, and shares 2 of its 14 characters with the first. The third is the second
    # piece.
    logits[0, BEFORE, 0] = 4.0
    assert len(_row(few, logits)["answers"]) == 2
    assert len(_row(replace(few, overlap=0.1), logits)["answers"]) == 1
    assert len(_row(replace(few, overlap=0.1, n_best=10), logits)["answers"]) == 2


def _two_windows() -> Tensor:
    """Return logits of two windows. Tokens 3 and 4 of the post are in both.

    Token 3 has a high logit in both. Token 0 has a higher one. Token 6 is alone in its window: it is the most probable.
    """
    logits = torch.full((2, BEFORE + ROOM + 1, 2), -9.0)
    logits[:, 0] = -3.0
    logits[0, BEFORE] = 2.2
    logits[0, BEFORE + 3] = 2.0
    logits[1, BEFORE] = 2.0
    logits[1, BEFORE + 3] = 2.1
    return logits


def test_ranks_differ_for_a_post_with_several_windows() -> None:
    def first(rank: Any) -> tuple[Any, Any]:
        row = _row(Decoding(max_answer_tokens=1, rank=rank), _two_windows(), windows=2)
        return row["start"], row["score"]

    assert first("sum") == (0, pytest.approx(10.4))
    # It occurs in both windows: its probabilities are added.
    assert first("softmax") == (9, pytest.approx(10 + math.log(2), abs=1e-5))
    logits = _two_windows()
    logits[1, BEFORE] = -9.0
    row = _row(Decoding(max_answer_tokens=1, rank="product"), logits, windows=2)
    assert row["start"] == 18  # no other candidate in its window
    one = [_row(Decoding(rank=rank), _two_pieces()) for rank in get_args(Rank)]
    assert one[1] == pytest.approx(one[0], abs=1e-5)
    assert one[2] == pytest.approx(one[0], abs=1e-5)


@pytest.mark.parametrize("rank", ["sum", "product", "softmax"])
@pytest.mark.parametrize("policy", ["none", "threshold", "ratio", "calibrated"])
def test_post_without_tokens_has_no_evidence(policy: Any, rank: Any) -> None:
    decoding = Decoding(null_policy=policy, rank=rank, top_k=2)
    spans = decode_pairs(torch.zeros(1, 3, 2), torch.full((1, 3, 2), -1), torch.tensor([0]), 1, decoding)
    row = {"start": -1, "end": -1, "score": -1e6, "null": True, "answers": []}
    assert answer_rows(spans, decoding.threshold) == [row]


@pytest.mark.parametrize("rank", ["sum", "product", "softmax"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_logits_raise_an_error(rank: Any, bad: float) -> None:
    logits = torch.zeros(3, BEFORE + ROOM + 1, 2)
    logits[1, 0, 1] = bad
    logits[2, -1] = bad  # padding is ignored
    decoding = Decoding(rank=rank, top_k=2, null_policy="none")
    spans = decode_pairs(logits, _offsets([0, 1, 0]), torch.tensor([0, 0, 1]), 2, decoding)
    assert spans.score[0].isnan().all()
    assert spans.score[1].isfinite().all()
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        answer_rows(spans, decoding.threshold)


def test_spans_over_a_whole_window_are_marked() -> None:
    def whole(decoding: Decoding) -> list[list[bool]]:
        logits = torch.zeros(2, BEFORE + ROOM + 1, 2)
        logits[0, BEFORE, 0] = logits[0, BEFORE + ROOM - 1, 1] = logits[1, BEFORE + 1] = 5.0
        logits[0, BEFORE + 3, 1] = 4.0
        answers: list[list[bool]] = decode_pairs(logits, _offsets([0, 0]), torch.arange(2), 2, decoding).whole.tolist()
        return answers

    assert whole(Decoding()) == [[True], [False]]
    assert whole(Decoding(max_answer_tokens=4)) == [[True], [False]]  # as long as a span can be


@pytest.mark.parametrize(
    ("decoding", "threshold"),
    [
        (Decoding(null_threshold=-1.5), -1.5),
        (Decoding(null_policy="calibrated", null_threshold=2.0, null_ratio=0.1), 2.0),
        (Decoding(null_policy="ratio", null_threshold=2.0, null_ratio=0.5), 0.0),
        (Decoding(null_policy="ratio", null_ratio=0.8), -math.log(4)),
    ],
)
def test_each_null_policy_is_a_threshold(decoding: Decoding, threshold: float) -> None:
    assert decoding.threshold == pytest.approx(threshold)


def test_threshold_of_the_policy_none_is_above_all_finite_odds() -> None:
    assert 1e30 < Decoding(null_policy="none").threshold < math.inf


def test_several_candidates_are_used_for_several_answers_and_softmax() -> None:
    assert Decoding(n_best=30).candidates == Decoding(n_best=30, rank="product").candidates == 1
    assert Decoding(n_best=30, rank="softmax").candidates == Decoding(n_best=30, top_k=2).candidates == 30
    assert Decoding(n_best=5, top_k=8).candidates == 8


def test_every_flag_is_checked() -> None:
    wrong = Decoding(0, float("nan"), "always", 1.0, 0, 1.1, 0, "max")  # type: ignore[arg-type]
    assert [line.split(":")[0].removeprefix("--model.decoding.") for line in wrong.problems()] == [
        "max_answer_tokens",
        "null_threshold",
        "null_policy",
        "null_ratio",
        "top_k",
        "overlap",
        "n_best",
        "rank",
    ]
    assert wrong.problems()[-1] == "--model.decoding.rank: got 'max'; it must be one of sum, product, softmax"


def test_windows_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = _offsets(list(range(9)))
    logits = torch.randn(9, offsets.shape[1], 2, generator=torch.Generator().manual_seed(0))
    pairs = torch.tensor([0] * 4 + [1] * 5)
    whole = decode_pairs(logits, offsets, pairs, 2, Decoding(top_k=3))
    monkeypatch.setattr("lightning_hpo.agents.spans.decoding._WINDOWS_AT_ONCE", 2)
    for part, column in zip(decode_pairs(logits, offsets, pairs, 2, Decoding(top_k=3)), whole, strict=True):
        assert torch.equal(part, column)


def test_spans_are_extended_to_whole_graphemes() -> None:
    text = "so e\u0301 tired"
    span = {"start": 4, "end": 5, "score": 1.0}
    found = with_whole_graphemes({**span, "null": False, "answers": [span, {**span, "start": 0, "end": 4}]}, text)
    assert (found["start"], found["end"], found["score"]) == (3, 5, 1.0)
    assert [(each["start"], each["end"]) for each in found["answers"]] == [(3, 5), (0, 5)]
    assert with_whole_graphemes({"start": -1, "end": -1, "null": True}, text) == {"start": -1, "end": -1, "null": True}


def test_snapping_without_texts_is_refused() -> None:
    logits = _two_pieces()
    with pytest.raises(
        InputError, match=r"^--model.decoding.snap: got sentence, but the data module's batches have no"
    ):
        decode_pairs(logits, _offsets([0]), torch.zeros(1).long(), 1, Decoding(snap="sentence"))
