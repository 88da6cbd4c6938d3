from pathlib import Path

import torch

from lightning_hpo.data import EvidenceDataModule

from .conftest import WriteCsv
from .test_pair_data_module import make


def test_half_of_the_scored_pairs_have_no_evidence(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    met = sum(pair.met for pair in module.val_pairs)
    assert len(module.val_pairs) == 2 * met
    sure = {(pair.post_id, pair.criterion) for pair in module.corpus.pairs if not pair.met}
    scored = {(pair.post_id, pair.criterion) for pair in module.val_pairs}
    posts = {pair.post_id for pair in module.corpus.pairs_of(module._split.val)} if module._split else set()
    assert {key for key in sure if key[0] in posts} <= scored


def test_labels_point_at_the_evidence(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    for batch in module.val_dataloader():
        rows = torch.arange(len(batch["pair_index"]))
        starts = batch["offsets"][rows, batch["start_positions"].clamp(min=0), 0].tolist()
        ends = batch["offsets"][rows, batch["end_positions"].clamp(min=0), 1].tolist()
        labels = batch["start_positions"].tolist()
        for row, pair in enumerate(batch["pair_index"].tolist()):
            if labels[row] > 0:
                assert (starts[row], ends[row]) in batch["spans"][pair]
            elif labels[row] == 0:
                assert starts[row] == -1


def test_evidence_that_was_not_found_is_left_out_and_counted(
    corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv
) -> None:
    lost = [(f"p{number}", "not in the post", "SAD", "1") for number in range(2, 40, 3)]
    kept = (corpus_folder / "annotations.csv").read_text().splitlines()
    rows = [tuple(line.split(",")) for line in kept if not line.startswith("p2,")]
    module = make(
        EvidenceDataModule,
        corpus_folder,
        tokenizer_folder,
        annotations=str(write_csv("annotations.csv", [*rows, *lost])),
    )
    module.setup("fit")
    assert module.counts["training pairs left out (their evidence was not found in the post)"] > 0
    assert all(pair.spans or not pair.met for pair in module.val_pairs)
