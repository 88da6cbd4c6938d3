from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_hpo.data import CriteriaDataModule

from .test_pair_data_module import make


@pytest.mark.parametrize("form", ["pairs", "one_pass"])
def test_every_pair_is_evaluated_and_has_its_label(corpus_folder: Path, tokenizer_folder: Path, form: str) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, form=form)
    module.setup("fit")
    assert len(module.val_pairs) == 20
    batches = list(module.val_dataloader())
    pairs = [pair for batch in batches for pair in zip(batch["post_ids"], batch["criteria"], strict=True)]
    assert sorted(pairs) == sorted(map(module.val_pairs.key, range(20)))
    for batch in batches:
        assert batch["met"].shape == (len(batch["post_ids"]),)
        assert batch["labels"].shape == batch["pair_index"].shape
        for pair, met in enumerate(batch["met"].tolist()):
            labels = batch["labels"][batch["pair_index"] == pair]
            assert (labels == 1).any() == bool(met)


def test_training_batches_have_the_keys_of_the_agent(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    assert module.negative_ratio == 4.0
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert set(batches[0]) == {"input_ids", "attention_mask", "token_type_ids", "labels", "augmented", "unaugmentable"}
    labels = [label for batch in batches for label in batch["labels"].tolist()]
    assert set(labels) == {0, 1}


def test_one_pass_trains_on_whole_posts_with_all_criteria(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, form="one_pass")
    module.setup("fit")
    batches = list(module.train_dataloader())
    inputs = {"input_ids", "attention_mask", "token_type_ids", "criterion_ids", "criterion_mask", "criterion_types"}
    assert set(batches[0]) == {*inputs, "row_windows", "row_criteria", "labels", "augmented", "unaugmentable"}
    for batch in batches:
        windows = len(batch["input_ids"])
        assert windows <= module.batch_size
        assert len(batch["criterion_ids"]) == 2
        assert batch["row_windows"].tolist() == [window for window in range(windows) for _ in range(2)]
        assert batch["row_criteria"].tolist() == [0, 1] * windows
        assert len(batch["labels"]) == 2 * windows == 2 * len(batch["augmented"])
    labels = torch.cat([batch["labels"] for batch in batches])
    assert (int((labels == 0).sum()), int((labels == 1).sum())) == module.class_counts


def test_explicit_negatives_are_in_every_epoch_and_others_redrawn(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, negative_ratio=0.5)
    module.setup("fit")
    annotated = {(pair.post_id, pair.criterion): pair.met for pair in module.corpus.pairs}
    sampler: Any = module.train_dataloader().sampler
    samples, ids = module._samples, module.corpus.posts.ids

    def pairs(epoch: int) -> set[tuple[str, str]]:
        drawn = [samples[draw.index] for batch in sampler.batches(epoch) for draw in batch]
        return {(ids[sample.row], next(iter(sample.targets))) for sample in drawn}

    train = set(module._read().train)
    explicit = {pair for pair, met in annotated.items() if not met and pair[0] in train}
    assert len(explicit) >= 3
    epochs = [pairs(epoch) for epoch in range(4)]
    assert all(explicit <= epoch for epoch in epochs)
    drawn = [frozenset(epoch - set(annotated)) for epoch in epochs]
    assert len(set(drawn)) == 4
    again = make(CriteriaDataModule, corpus_folder, tokenizer_folder, negative_ratio=0.5)
    again.setup("fit")
    other: Any = again.train_dataloader().sampler
    assert list(other.batches(3)) == list(sampler.batches(3))


def test_validation_has_every_post_and_criterion(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, negative_ratio=0.0)
    module.setup("fit")
    batches = list(module.val_dataloader())
    scored = [pair for batch in batches for pair in zip(batch["post_ids"], batch["criteria"], strict=True)]
    posts, criteria = module._read().val, module.corpus.criteria
    assert sorted(scored) == sorted((post, criterion) for post in posts for criterion in criteria)
    kinds = Counter(met for batch in batches for met in batch["met"].tolist())
    assert kinds[0] > kinds[1] > 0
