from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.batching import Draw
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.train_windows import TrainWindow, TrainWindows, fitting
from lightning_hpo.data.window_labels import evidence_labels
from lightning_hpo.data.window_target import WindowTarget
from lightning_hpo.data.windows import Windows

from .conftest import WORDS

# Evidence is the words 10 to 14; a window holds the words 5 to 29.
TEXTS = {"a": " ".join(WORDS[:40])}
DRAWS = [Draw(epoch, 0) for epoch in range(30)]


def _dataset(tokenizer: PreTrainedTokenizerFast, **augmentation: float | bool) -> TrainWindows:
    windows = Windows(tokenizer, max_length=30, stride=4)
    return TrainWindows(
        [TrainWindow("a", "SAD", 5, 30, WindowTarget(1, ((5, 9),)))],
        texts=TEXTS,
        posts=TokenizedPosts(TEXTS, tokenizer),
        criteria={"SAD": windows.tokenize(["sad"])[0]},
        windows=windows,
        labels=evidence_labels,
        augmentation=Augmentation(**augmentation),  # type: ignore[arg-type]
        seed=3,
    )


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_augmentation_that_never_applies_changes_no_byte(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = _dataset(tokenizer)[DRAWS]
    assert _same(plain, _dataset(tokenizer, enabled=True, p_apply=0.0)[DRAWS])
    assert _same(plain, _dataset(tokenizer, enabled=False, p_apply=1.0)[DRAWS])
    assert not plain["augmented"].any()


def test_augmented_evidence_is_still_evidence(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = _dataset(tokenizer, enabled=True, p_apply=0.8, max_share=0.5)[DRAWS]
    assert 0.5 < batch["augmented"].float().mean() < 1
    evidence = {tokenizer.convert_tokens_to_ids(word) for word in WORDS[10:15]}
    others = {tokenizer.convert_tokens_to_ids(word) for word in [*WORDS[5:10], *WORDS[15:30]]}
    changed = 0
    for row in range(len(DRAWS)):
        ids = batch["input_ids"][row].tolist()
        start, end = int(batch["start_positions"][row]), int(batch["end_positions"][row])
        inside, outside = set(ids[start : end + 1]), set(ids[:start] + ids[end + 1 :])
        assert inside <= evidence
        assert inside
        assert not outside & evidence
        changed += not others <= outside
    assert changed


def test_a_sample_depends_on_its_epoch_and_index_alone(tokenizer: PreTrainedTokenizerFast) -> None:
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
    ],
)
def test_what_is_too_long_is_cut_away_from_the_evidence(
    tokens: int, room: int, evidence: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert fitting(tokens, room, evidence) == expected


def test_no_cache_is_made_without_a_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    _dataset(tokenizer)
    assert not list(tmp_path.iterdir())
