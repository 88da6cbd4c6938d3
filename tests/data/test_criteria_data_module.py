from pathlib import Path

from lightning_hpo.data import CriteriaDataModule

from .test_pair_data_module import make


def test_every_pair_is_scored_and_says_whether_it_is_met(corpus_folder: Path, tokenizer_folder: Path) -> None:
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
