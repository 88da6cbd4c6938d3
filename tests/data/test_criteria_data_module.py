from collections import Counter
from pathlib import Path
from typing import Any

from lightning_hpo.data import CriteriaDataModule

from .test_pair_data_module import make


def test_every_pair_is_evaluated_and_has_its_label(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    assert len(module.val_pairs) == 20
    for batch in module.val_dataloader():
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


def test_explicit_negatives_are_in_every_epoch_and_others_redrawn(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, negative_ratio=0.5)
    module.setup("fit")
    annotated = {(pair.post_id, pair.criterion): pair.met for pair in module.corpus.pairs}
    sampler: Any = module.train_dataloader().sampler
    samples, ids = module._samples, module.corpus.posts.ids

    def pairs(epoch: int) -> set[tuple[str, str]]:
        drawn = [samples[draw.index] for batch in sampler.batches(epoch) for draw in batch]
        return {(ids[sample.row], sample.criterion) for sample in drawn}

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
