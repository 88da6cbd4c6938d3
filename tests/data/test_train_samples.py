import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.corpus import Corpus, TokenizedCorpus
from lightning_hpo.data.labels import IGNORED, WindowTarget, window_targets
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.train_samples import TrainSamples, TrainWindow

# Each word is one token and takes three characters with its space.
TEXTS = {f"p{words}": " ".join(["w1"] * words) for words in (30, 1, 12, 7, 40)}
CRITERIA = {"SAD": "sad", "TIRED": "so tired am i"}
# The first evidence is cut by two windows, and the third is longer than any.
PAIRS = (Pair("p30", "SAD", True, ((24, 32),)), Pair("p12", "TIRED", False), Pair("p40", "TIRED", True, ((0, 100),)))


def _criterion(window: TrainWindow) -> str:
    (criterion,) = window.targets
    return criterion


def _target(window: TrainWindow) -> WindowTarget:
    return window.targets[_criterion(window)]


@pytest.fixture
def made(tokenizer: PreTrainedTokenizerFast) -> tuple[TrainSamples, list[TrainWindow]]:
    """Samples, and the expected windows: all pairs cut at once."""
    corpus = Corpus(Posts.of(TEXTS), CRITERIA, PAIRS)
    tokens = TokenizedCorpus.of(corpus, tokenizer, max_length=16, stride=2)
    pairs = corpus.pairs_of(tuple(TEXTS))
    expected = []
    for pair in pairs:
        row = list(TEXTS).index(pair.post_id)
        ranges = tokens.windows.ranges(len(tokens.posts[row]), tokens.criteria[pair.criterion])
        targets = window_targets(tokens.posts[row], ranges, pair.spans, met=pair.met)
        expected += [
            TrainWindow(row, *cut, {pair.criterion: target}) for cut, target in zip(ranges, targets, strict=True)
        ]
    samples = TrainSamples(pairs, tokens, negative_ratio=1.0)
    return samples, [window for window in expected if _target(window).label != IGNORED]


def test_windows_equal_those_cut_all_at_once(
    made: tuple[TrainSamples, list[TrainWindow]],
) -> None:
    samples, expected = made
    assert [samples[number] for number in range(len(samples))] == expected
    criteria = {"SAD": 1, "TIRED": 4}
    lengths = [window.stop - window.first + criteria[_criterion(window)] for window in expected]
    assert samples.lengths(np.arange(len(samples))).tolist() == lengths
    order = np.random.default_rng(0).permutation(len(samples))
    assert samples.lengths(order).tolist() == [lengths[number] for number in order]


def test_annotated_windows_are_kept_and_others_counted(
    made: tuple[TrainSamples, list[TrainWindow]],
) -> None:
    samples, expected = made
    annotated = {(list(TEXTS).index(pair.post_id), pair.criterion) for pair in PAIRS}
    kept = [number for number, window in enumerate(expected) if (window.row, _criterion(window)) in annotated]
    assert samples.kept.tolist() == kept
    positives = sum(_target(window).label == 1 for window in expected)
    assert samples.drawn == positives > 1
    assert samples.class_counts == (len(kept), positives)
    assert all(samples.counts.values())
    assert len(samples.counts) == 2
