import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.corpus import Corpus, TokenizedCorpus
from lightning_hpo.data.labels import IGNORED, window_targets
from lightning_hpo.data.one_pass_samples import OnePassSamples
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.posts import Posts
from lightning_hpo.exceptions import InputError

# Each word is one token and takes three characters with its space.
TEXTS = {f"p{words}": " ".join(["w1"] * words) for words in (30, 1, 12, 7, 50)}
CRITERIA = {"SAD": "sad", "TIRED": "so tired am i"}
# The first evidence is cut by a border, and the last is longer than any window.
PAIRS = (Pair("p30", "SAD", True, ((36, 47),)), Pair("p12", "TIRED", False), Pair("p50", "TIRED", True, ((0, 100),)))


def _made(
    tokenizer: PreTrainedTokenizerFast, pairs: tuple[Pair, ...] = PAIRS, ratio: float = 1.0
) -> tuple[OnePassSamples, TokenizedCorpus]:
    corpus = Corpus(Posts.of(TEXTS), CRITERIA, pairs)
    tokens = TokenizedCorpus.of(corpus, tokenizer, max_length=16, stride=2, form="one_pass")
    return OnePassSamples(corpus.pairs_of(tuple(TEXTS)), tokens, ratio), tokens


def test_every_window_has_the_target_of_every_criterion(tokenizer: PreTrainedTokenizerFast) -> None:
    samples, tokens = _made(tokenizer)
    known = {(pair.post_id, pair.criterion): pair for pair in PAIRS}
    number = 0
    for row, post_id in enumerate(TEXTS):
        ranges = tokens.windows.ranges(len(tokens.posts[row]), tokens.criteria["SAD"])
        expected = {}
        for criterion in CRITERIA:
            pair = known.get((post_id, criterion), Pair(post_id, criterion, False))
            expected[criterion] = window_targets(tokens.posts[row], ranges, pair.spans, met=pair.met)
        for place, window in enumerate(ranges):
            sample = samples[number]
            assert (sample.row, sample.first, sample.stop) == (row, *window)
            assert sample.targets == {criterion: targets[place] for criterion, targets in expected.items()}
            number += 1
    assert len(samples) == number
    lengths = [samples[place].stop - samples[place].first for place in range(number)]
    order = np.random.default_rng(0).permutation(number)
    assert samples.lengths(order).tolist() == [lengths[place] for place in order]


def test_windows_with_evidence_are_kept_and_others_drawn(tokenizer: PreTrainedTokenizerFast) -> None:
    samples, _ = _made(tokenizer)
    labels = [[target.label for target in samples[number].targets.values()] for number in range(len(samples))]
    assert samples.kept.tolist() == [number for number, own in enumerate(labels) if 1 in own]
    assert samples.drawn == len(samples.kept) == 2
    sampler = samples.batches(2, seed=3)
    for epoch in range(3):
        drawn = [draw.index for batch in sampler.batches(epoch) for draw in batch]
        counted = [label for number in drawn for label in labels[number]]
        assert len(drawn) == 4
        assert set(samples.kept.tolist()) < set(drawn)
        assert samples.class_counts[1] == counted.count(1)
        # Each drawn window may cut a sentence.
        assert 0 <= samples.class_counts[0] - counted.count(0) <= samples.drawn
    assert any(IGNORED in own for own in labels)
    assert all(samples.counts.values())
    assert len(samples.counts) == 2


def test_more_windows_than_there_are_cannot_be_drawn(tokenizer: PreTrainedTokenizerFast) -> None:
    samples, _ = _made(tokenizer, ratio=100.0)
    assert samples.drawn == len(samples) - len(samples.kept)


def test_corpus_without_evidence_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"^--data.annotations: no post of the training split has evidence"):
        _made(tokenizer, (Pair("p12", "TIRED", False),))
