from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule, JointDataModule
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv
from .test_pair_data_module import make


def test_labels_are_those_of_the_one_pass_form_and_of_evidence(corpus_folder: Path, tokenizer_folder: Path) -> None:
    """A token [SEP] separates the criterion from the post in pairs, so their windows have less room."""
    joint = make(JointDataModule, corpus_folder, tokenizer_folder, max_length=128)
    criteria = make(CriteriaDataModule, corpus_folder, tokenizer_folder, max_length=128, form="one_pass")
    evidence = make(EvidenceDataModule, corpus_folder, tokenizer_folder, max_length=128)
    for module in (joint, criteria, evidence):
        module.setup("fit")
    labels: dict[tuple[str, str], int] = {}
    for batch in criteria.val_dataloader():
        labels |= dict(zip(_keys(batch), batch["labels"].tolist(), strict=True))
    spans: dict[tuple[str, str], Any] = {}
    for batch in evidence.val_dataloader():
        spans |= dict(zip(_keys(batch), _characters(batch), strict=True))
    found = [batch for batch in joint.val_dataloader() for _ in batch["post_ids"]]
    assert len(found) == len(labels) == len(spans)
    for batch in joint.val_dataloader():
        assert dict(zip(_keys(batch), batch["labels"].tolist(), strict=True)).items() <= labels.items()
        assert dict(zip(_keys(batch), _characters(batch), strict=True)).items() <= spans.items()
    assert sum(labels.values()) == sum(first != -1 for first, _ in spans.values()) > 3


def _keys(batch: Any) -> list[tuple[str, str]]:
    assert batch["pair_index"].tolist() == list(range(len(batch["post_ids"])))
    return list(zip(batch["post_ids"], batch["criteria"], strict=True))


def _characters(batch: Any) -> list[tuple[int, int]]:
    """Return the characters of the first piece of evidence of each window; -1 for none."""
    rows = torch.arange(len(batch["start_positions"]))
    places = (batch[name][:, 0] for name in ("start_positions", "end_positions"))
    starts, ends = (batch["offsets"][rows, place, side] for side, place in enumerate(places))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def test_criterion_met_by_lost_evidence_is_a_label_without_spans(
    corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv
) -> None:
    lost = {f"p{number}" for number in range(2, 40, 3)}
    kept = (corpus_folder / "annotations.csv").read_text().splitlines()
    rows = [tuple(line.split(",")) for line in kept if not line.startswith("p2,")]
    rows += [(post, "not in the post", "SAD", "1") for post in sorted(lost)]
    annotations = str(write_csv("annotations.csv", rows))
    module = make(JointDataModule, corpus_folder, tokenizer_folder, annotations=annotations)
    module.setup("fit")
    reason = "without evidence to learn from (their evidence was not found in the post)"
    assert module.counts[f"training pairs {reason}"] > 0
    assert module.counts[f"validation pairs {reason}"] > 0
    unknown = [
        (pair, met)
        for batch in module.val_dataloader()
        for *pair, met, known in zip(
            batch["post_ids"], batch["criteria"], batch["met"].tolist(), batch["evidence_known"], strict=True
        )
        if not known
    ]
    assert unknown
    assert all(met and post in lost and criterion == "SAD" for (post, criterion), met in unknown)
    batches = list(module.train_dataloader())
    starts = torch.cat([batch["start_positions"][:, 0] for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    assert int(((labels == 1) & (starts == -100)).sum()) > 0
    assert not bool(((labels == 0) & (starts != 0)).any())


def test_split_without_evidence_is_refused(corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv) -> None:
    head, *rows = ((line.split(",")) for line in (corpus_folder / "annotations.csv").read_text().splitlines())
    lost = [(row[0], "not in the post", *row[2:]) for row in rows]
    annotations = str(write_csv("annotations.csv", [tuple(head), *lost]))
    module = make(JointDataModule, corpus_folder, tokenizer_folder, annotations=annotations)
    with pytest.raises(InputError, match=r"--data\.annotations: the evidence of .* was not found in their posts"):
        module.setup("fit")
