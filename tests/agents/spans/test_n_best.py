import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.spans.n_best import best_of_pairs, best_spans

NOTHING = float("-inf")


def _brute_force(starts: Tensor, ends: Tensor, allowed: Tensor, longest: int) -> list[tuple[float, int, int]]:
    """Return every legal span of a window, best first."""
    places = [place for place, can in enumerate(allowed.tolist()) if can]
    found = [
        (float(starts[start] + ends[end]), start, end)
        for start in places
        for end in places
        if start <= end < start + longest
    ]
    return sorted(found, key=lambda span: (-span[0], *span[1:]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 14), st.integers(1, 20), st.integers(1, 60), st.booleans()
)
def test_best_spans_match_brute_force_including_ties(
    seed: int, windows: int, tokens: int, longest: int, n_best: int, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, windows, tokens, generator=generator)
    logits = logits.round() if ties else logits
    allowed = torch.rand(windows, tokens, generator=generator) < 0.7
    first, last, score = best_spans(logits[0], logits[1], allowed, longest, n_best)
    assert (last < tokens).all()
    for window in range(windows):
        columns = (score[window].tolist(), first[window].tolist(), last[window].tolist())
        found = [span for span in zip(*columns, strict=True) if span[0] > NOTHING]
        assert found == _brute_force(logits[0, window], logits[1, window], allowed[window], longest)[:n_best]


def test_window_without_post_tokens_has_no_span() -> None:
    _, _, score = best_spans(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool), 2)
    assert score.tolist() == [[NOTHING]]


def test_best_spans_of_a_pair_come_from_all_its_windows() -> None:
    score = torch.tensor([[5.0, 1.0], [9.0, 8.0], [5.0, 4.0]])
    assert best_of_pairs(score, torch.tensor([1, 0, 1]), 2, 3).tolist() == [[2, 3, -1], [0, 4, 5]]
