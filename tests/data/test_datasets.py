from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.augmentation.methods import METHODS
from lightning_hpo.data.batching import Draw
from lightning_hpo.data.corpus import Corpus, TokenizedCorpus
from lightning_hpo.data.datasets import EvalDataset, TrainDataset, fitting
from lightning_hpo.data.labels import WindowTarget, criteria_labels, evidence_labels
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.train_loader import unchanged
from lightning_hpo.data.train_samples import TrainWindow

from .conftest import WORDS

# Evidence is the words 10 to 14; a window holds the words 5 to 29.
TEXTS = {"a": " ".join(WORDS[:40])}
SAMPLE = TrainWindow(0, 5, 30, {"SAD": WindowTarget(1, ((5, 9),))})
DRAWS = [Draw(epoch, 0) for epoch in range(30)]


def _dataset(
    tokenizer: PreTrainedTokenizerFast,
    texts: Mapping[str, str] = TEXTS,
    sample: TrainWindow = SAMPLE,
    **augmentation: Any,
) -> TrainDataset:
    corpus = Corpus(Posts.of(texts), {"SAD": "sad"})
    return TrainDataset(
        [sample],
        TokenizedCorpus.of(corpus, tokenizer, max_length=30, stride=4),
        labels=evidence_labels,
        augmentation=Augmentation(**augmentation),
        seed=3,
    )


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_disabled_augmentation_changes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = _dataset(tokenizer)[DRAWS]
    assert _same(plain, _dataset(tokenizer, enabled=True, p_apply=0.0)[DRAWS])
    assert _same(plain, _dataset(tokenizer, enabled=False, p_apply=1.0)[DRAWS])
    assert not plain["augmented"].any()


_BUILT_IN = [name for name in METHODS if name != "synonyms"]


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=20),
    st.data(),
    st.lists(st.sampled_from(_BUILT_IN), min_size=1, unique=True),
    st.integers(0, 9),
)
def test_augmentation_with_probability_0_changes_nothing(
    tokenizer: PreTrainedTokenizerFast, words: list[str], data: st.DataObject, methods: list[str], epoch: int
) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    sample = TrainWindow(0, 0, len(words), {"SAD": WindowTarget(1, ((first, last),))})
    options = {"enabled": True, "methods": methods, "p_apply": 0.0, "operations": 3, "max_share": 0.9}
    plain, never = (
        _dataset(tokenizer, {"a": " ".join(words)}, sample, **given)[[Draw(epoch, 0)]] for given in ({}, options)
    )
    assert _same(plain, never)
    assert tokenizer.decode(never["input_ids"][0], skip_special_tokens=True) == " ".join(["sad", *words])


@pytest.mark.parametrize("p_apply", [0.05, 0.3, 1.0])
def test_share_of_augmented_samples_is_p_apply(tokenizer: PreTrainedTokenizerFast, p_apply: float) -> None:
    dataset = _dataset(tokenizer, enabled=True, p_apply=p_apply, methods=["swap", "keyboard"])
    draws = [Draw(epoch, 0) for epoch in range(1000)]
    batch, plain = dataset[draws], _dataset(tokenizer)[draws[:1]]
    assert batch["augmented"].float().mean() == pytest.approx(p_apply, abs=0.04)
    assert not batch["unaugmentable"].any()
    length = plain["input_ids"].shape[1]
    assert torch.equal(batch["augmented"], (batch["input_ids"][:, :length] != plain["input_ids"]).any(dim=1))


@pytest.mark.parametrize(
    ("text", "method"), [("i am i", "split"), ("☺ ☻ ☺", "swap")], ids=["no letter to change", "the same tokens"]
)
def test_samples_that_cannot_change_are_unaugmentable(
    tokenizer: PreTrainedTokenizerFast, text: str, method: str
) -> None:
    sample = TrainWindow(0, 0, 3, {"SAD": WindowTarget(0, ())})
    batch = _dataset(tokenizer, {"a": text}, sample, enabled=True, p_apply=0.5, methods=[method])[DRAWS]
    assert not batch["augmented"].any()
    assert batch["unaugmentable"].float().mean() == pytest.approx(0.5, abs=0.25)


# Depends on the machine, not on the code.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*", "ignore:.*worker processes in total.*")
def test_samples_are_the_same_with_any_number_of_workers(tokenizer: PreTrainedTokenizerFast) -> None:
    methods = ["swap", "keyboard", "ocr"]
    dataset = _dataset(tokenizer, enabled=True, p_apply=0.8, methods=methods, operations=2, max_share=0.5)
    batches = [DRAWS[start : start + 3] for start in range(0, len(DRAWS), 3)]
    made = [
        list(DataLoader(dataset, batch_size=None, sampler=batches, collate_fn=unchanged, num_workers=workers))
        for workers in (0, 1, 3)
    ]
    assert all(_same(one, other) for others in made[1:] for one, other in zip(made[0], others, strict=True))


@pytest.mark.parametrize(
    ("methods", "first"),
    [(["swap", "delete"], 5), (["ocr"], 0), (["ocr"], 20)],
    ids=["fewer tokens", "cut at the end", "cut at the start"],
)
def test_labels_of_augmented_samples_mark_the_evidence(
    tokenizer: PreTrainedTokenizerFast, methods: list[str], first: int
) -> None:
    sample = TrainWindow(0, 5, 30, {"SAD": WindowTarget(1, ((first, first + 4),))})
    dataset = _dataset(tokenizer, TEXTS, sample, enabled=True, methods=methods, p_apply=0.8, max_share=0.5)
    batch = dataset[DRAWS]
    assert 0.5 < batch["augmented"].float().mean() < 1
    tokens = [tokenizer.vocab[word] for word in WORDS[5:30]]
    evidence = set(tokens[first : first + 5])
    others = set(tokens) - evidence
    changed = 0
    for row in range(len(DRAWS)):
        ids = batch["input_ids"][row].tolist()
        start, end = int(batch["start_positions"][row]), int(batch["end_positions"][row])
        inside, outside = set(ids[start : end + 1]), set(ids[:start] + ids[end + 1 :])
        assert 0 < start <= end
        assert not inside & others
        assert not outside & evidence
        changed += not others <= outside
    assert changed


def test_sample_depends_only_on_epoch_and_index(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = _dataset(tokenizer, enabled=True, p_apply=0.8)
    np.random.default_rng(0)
    assert _same(dataset[DRAWS], dataset[DRAWS])
    alone, among = dataset[[DRAWS[7]]], dataset[DRAWS]
    length = int(alone["attention_mask"].sum())
    assert torch.equal(alone["input_ids"][0, :length], among["input_ids"][7, :length])
    assert len({tuple(row) for row in among["input_ids"].tolist()}) > 10


@pytest.mark.parametrize(
    ("tokens", "room", "evidence", "expected"),
    [
        (10, 12, [(0, 3)], (0, 10)),
        (10, 8, [], (0, 8)),
        (10, 8, [(0, 3)], (0, 8)),
        (10, 8, [(6, 9)], (2, 10)),
        (10, 4, [(3, 6)], (3, 7)),
        (10, 6, [(2, 3), (6, 7)], (2, 8)),
        (10, 7, [(2, 3), (8, 9)], None),
        (10, 8, [(2, 3), (8, 9)], (2, 10)),
        (0, 8, [], None),
    ],
)
def test_fitting_cuts_away_from_the_evidence(
    tokens: int, room: int, evidence: list[tuple[int, int]], expected: tuple[int, int] | None
) -> None:
    assert fitting(tokens, room, evidence) == expected


def test_dataset_writes_no_files(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    _dataset(tokenizer)
    assert not list(tmp_path.iterdir())


EVAL_TEXTS = {"one": "w2 w3", "long": " ".join(["w1"] * 30), "other": "w2 w3"}


def _eval_dataset(tokenizer: PreTrainedTokenizerFast, *pairs: Pair, **how: object) -> EvalDataset:
    corpus = Corpus(Posts.of(EVAL_TEXTS), {"SAD": "sad"}, pairs)
    return EvalDataset(
        corpus.pairs_of(tuple(EVAL_TEXTS)),
        TokenizedCorpus.of(corpus, tokenizer, max_length=16, stride=4),
        batch_size=3,
        **how,  # type: ignore[arg-type]
    )


def test_windows_of_a_pair_are_in_one_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = _eval_dataset(tokenizer, offsets=True)
    first, second = (dataset[index] for index in range(len(dataset)))
    assert first["post_ids"] == ["long"]
    assert first["pair_index"].tolist() == [0, 0, 0, 0]
    assert second["post_ids"] == ["one", "other"]
    assert second["input_ids"].shape == (2, 8)
    assert torch.equal(second["offsets"][0, 3:5], torch.tensor([[0, 2], [3, 5]]))
    assert "labels" not in first


def test_each_window_has_its_own_label(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = _eval_dataset(
        tokenizer, Pair("long", "SAD", True, ((0, 2),)), Pair("other", "SAD", True), labels=criteria_labels
    )
    assert [dataset[index]["labels"].tolist() for index in range(2)] == [[1, 0, 0, 0], [0, 1]]
