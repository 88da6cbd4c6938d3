from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_hpo.data import EvidenceDataModule
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv
from .test_pair_data_module import make


def test_every_pair_is_evaluated_as_a_user_asks_about_it(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    assert module._split is not None
    assert len(module.val_pairs) == len(module._split.val) * len(module.corpus.criteria)


def test_study_of_the_previous_version_evaluates_as_many_pairs_without_evidence_as_with_it(
    corpus_folder: Path, tokenizer_folder: Path
) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder, split_rule="hash")
    module.setup("fit")
    assert len(module.val_pairs) == 2 * sum(pair.met for pair in module.val_pairs)
    sure = {(pair.post_id, pair.criterion) for pair in module.corpus.pairs if not pair.met}
    scored = {(pair.post_id, pair.criterion) for pair in module.val_pairs}
    posts = {pair.post_id for pair in module.corpus.pairs_of(module._split.val)} if module._split else set()
    assert {key for key in sure if key[0] in posts} <= scored


def test_labels_mark_the_evidence(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    for batch in module.val_dataloader():
        rows = torch.arange(len(batch["pair_index"])).unsqueeze(1)
        starts = batch["offsets"][rows, batch["start_positions"].clamp(min=0), 0].tolist()
        ends = batch["offsets"][rows, batch["end_positions"].clamp(min=0), 1].tolist()
        labels = batch["start_positions"].tolist()
        for row, pair in enumerate(batch["pair_index"].tolist()):
            for label, start, end in zip(labels[row], starts[row], ends[row], strict=True):
                if label > 0:
                    assert (start, end) in batch["spans"][pair]
                elif label == 0:
                    assert start == -1


def test_every_piece_of_evidence_is_labelled(corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv) -> None:
    kept = [tuple(line.split(",")) for line in (corpus_folder / "annotations.csv").read_text().splitlines()]
    more = [(row[0], row[1].split()[-1], row[2], "1") for row in kept[1:] if row[3] == "1"]
    annotations = str(write_csv("annotations.csv", [*kept, *more]))
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder, annotations=annotations)
    module.setup("fit")
    pieces = [int((batch["start_positions"] > 0).sum(dim=1).max()) for batch in module.train_dataloader()]
    assert max(pieces) == 2


def test_number_of_null_examples_follows_negative_ratio(corpus_folder: Path, tokenizer_folder: Path) -> None:
    def epoch(ratio: float) -> tuple[int, int, set[tuple[str, str, int]]]:
        """Return the numbers of windows without and with evidence, and the keys of all windows."""
        module = make(EvidenceDataModule, corpus_folder, tokenizer_folder, negative_ratio=ratio)
        module.setup("fit")
        starts = torch.cat([batch["start_positions"][:, 0] for batch in module.train_dataloader()])
        sampler: Any = module.train_dataloader().sampler
        drawn = [module._samples[draw.index] for batch in sampler.batches(0) for draw in batch]
        ids = module.corpus.posts.ids
        keys = {(ids[sample.row], next(iter(sample.targets)), sample.first) for sample in drawn}
        # Explicit negatives are in every epoch.
        posts = module._split.train if module._split else ()
        explicit = {(p.post_id, p.criterion) for p in module.corpus.pairs if not p.met and p.post_id in posts}
        assert explicit
        assert explicit <= {key[:2] for key in keys}
        return int((starts == 0).sum()), int((starts > 0).sum()), keys

    without, found, none = epoch(0.0)
    for ratio in (0.1, 0.5, 1.0):
        null, positive, some = epoch(ratio)
        assert positive == found
        assert null - without == round(ratio * found)
        assert none < some


def test_missing_null_examples_are_counted(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(EvidenceDataModule, corpus_folder, tokenizer_folder, negative_ratio=100)
    module.setup("fit")
    name = "training windows that --data.negative_ratio asks for and the corpus does not have"
    assert module.counts[name] == module._samples.drawn - (len(module._samples) - len(module._samples.kept)) > 0


def test_pairs_with_evidence_not_found_are_left_out_and_counted(
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
    assert module.counts["validation pairs left out (their evidence was not found in the post)"] > 0
    assert module.counts["test pairs left out (their evidence was not found in the post)"] > 0


def test_scored_pairs_do_not_depend_on_the_order_of_the_file(
    corpus_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    head, *rows = (corpus_folder / "posts.csv").read_text().splitlines()
    posts = tmp_path / "posts.csv"
    posts.write_text("\n".join([head, *reversed(rows)]) + "\n")

    def scored(**changed: Any) -> tuple[set[tuple[str, str]], str]:
        module = make(EvidenceDataModule, corpus_folder, tokenizer_folder, **changed)
        module.setup("validate")
        return {(pair.post_id, pair.criterion) for pair in module.val_pairs}, module.fingerprint

    assert scored() == scored(posts=str(posts))
    assert scored(split_rule="hash") != scored(split_rule="hash", posts=str(posts))  # as in version 0.1.0
    assert scored()[1] != scored(split_rule="hash")[1]


def test_evidence_that_is_lost_altogether_is_an_error_that_names_the_cause(
    corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv
) -> None:
    rows = [line.split(",") for line in (corpus_folder / "annotations.csv").read_text().splitlines()]
    shouted = [rows[0], *([row[0], row[1].upper(), *row[2:]] for row in rows[1:])]
    module = make(
        EvidenceDataModule, corpus_folder, tokenizer_folder, annotations=str(write_csv("annotations.csv", shouted))
    )
    with pytest.raises(InputError) as caught:
        module.setup("fit")
    (line,) = caught.value.problems
    assert line == (
        "--data.annotations: the evidence of 27 of 27 positive pairs was not found in their posts; 27 sentences are "
        "there in other upper or lower case: keep the upper and lower case of the posts"
    )
