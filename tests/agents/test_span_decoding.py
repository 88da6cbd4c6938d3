import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.span_decoding import Decoding, best_spans, decode_pairs


def _brute_force(starts: Tensor, ends: Tensor, allowed: Tensor, longest: int) -> tuple[float, int, int]:
    """Try every pair of tokens of one window."""
    places = [place for place, can in enumerate(allowed.tolist()) if can]
    found = [
        (float(starts[start] + ends[end]), start, end)
        for start in places
        for end in places
        if start <= end < start + longest
    ]
    return max(found, key=lambda span: (span[0], -span[1], -span[2]), default=(float("-inf"), 0, 0))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 14), st.integers(1, 20), st.booleans())
def test_best_spans_are_those_of_brute_force(seed: int, windows: int, tokens: int, longest: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, windows, tokens, generator=generator)
    logits = logits.round() if ties else logits
    allowed = torch.rand(windows, tokens, generator=generator) < 0.7
    first, last, score = best_spans(logits[0], logits[1], allowed, longest)
    for window in range(windows):
        expected = _brute_force(logits[0, window], logits[1, window], allowed[window], longest)
        assert float(score[window]) == pytest.approx(expected[0])
        if allowed[window].any():
            assert (int(first[window]), int(last[window])) == expected[1:]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(-3, 3))
def test_pairs_are_answered_from_all_of_their_windows(seed: int, pairs: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    extra = torch.randint(0, pairs, (4,), generator=generator)
    pair_index = torch.cat((torch.arange(pairs), extra))[torch.randperm(pairs + 4, generator=generator)]
    windows, tokens = len(pair_index), 9
    logits = torch.randn(windows, tokens, 2, generator=generator)
    offsets = torch.full((windows, tokens, 2), -1)
    for window in range(windows):
        place = torch.arange(6) * 5 + 30 * window
        offsets[window, 2:8] = torch.stack((place, place + 4), dim=-1)
    answer = decode_pairs(logits, offsets, pair_index, pairs, Decoding(3, threshold))
    for pair in range(pairs):
        own = [window for window in range(windows) if pair_index[window] == pair]
        null = min(float(logits[window, 0].sum()) for window in own)
        found = {w: _brute_force(logits[w, :, 0], logits[w, :, 1], offsets[w, :, 0] >= 0, 3) for w in own}
        best = max(own, key=lambda window: found[window][0])
        score, first, last = found[best]
        assert int(answer.start[pair]) == int(offsets[best, first, 0])
        assert int(answer.end[pair]) == int(offsets[best, last, 1])
        assert float(answer.score[pair]) == pytest.approx(score - null, abs=1e-5)
        assert bool(answer.null[pair]) == (null - score > threshold)


def test_a_post_without_tokens_has_no_evidence() -> None:
    offsets = torch.full((1, 3, 2), -1)
    answer = decode_pairs(torch.zeros(1, 3, 2), offsets, torch.tensor([0]), 1, Decoding())
    assert answer.null.tolist() == [True]
    assert torch.isfinite(answer.score).all()


def test_the_threshold_and_the_longest_answer_act() -> None:
    logits = torch.zeros(1, 5, 2)
    logits[0, 1, 0] = logits[0, 4, 1] = 2.0
    offsets = torch.tensor([[[-1, -1], [0, 1], [1, 2], [2, 3], [3, 4]]])
    pair = torch.tensor([0])
    assert decode_pairs(logits, offsets, pair, 1, Decoding(4)).end.tolist() == [4]
    assert decode_pairs(logits, offsets, pair, 1, Decoding(2)).end.tolist() == [1]
    assert decode_pairs(logits, offsets, pair, 1, Decoding(4, -3.0)).null.tolist() == [False]
    assert decode_pairs(logits, offsets, pair, 1, Decoding(4, -5.0)).null.tolist() == [True]
