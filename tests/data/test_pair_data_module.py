import pickle
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data import Augmentation, CriteriaDataModule, EvidenceDataModule, JointDataModule, PairDataModule
from lightning_hpo.data.batching import Draw
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv

_HEADER = ("post_id", "sentence_text", "DSM5_symptom", "status")


class OnePassDataModule(CriteriaDataModule):
    """Criteria data in the one-pass form."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(form="one_pass", **kwargs)


KINDS = [CriteriaDataModule, OnePassDataModule, EvidenceDataModule, JointDataModule]
EACH = pytest.mark.parametrize("kind", KINDS)


def make(kind: type[PairDataModule], corpus: Path, tokenizer: Path, **changed: Any) -> PairDataModule:
    """Make a data module of the test corpus with windows of 32 tokens."""
    arguments: dict[str, Any] = {
        "posts": str(corpus / "posts.csv"),
        "annotations": str(corpus / "annotations.csv"),
        "criteria": str(corpus / "criteria.yaml"),
        "tokenizer": str(tokenizer),
        "max_length": 32,
        "stride": 8,
        "batch_size": 4,
        "eval_batch_size": 12,
        "val_fraction": 0.25,
        "test_fraction": 0.2,
    }
    return kind(**arguments | changed)


@EACH
def test_test_split_is_read_only_in_stage_test(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    for name in ("scored_pairs", "training_pairs"):
        original = getattr(kind, name)

        def spy(self: PairDataModule, posts: tuple[str, ...], original: Any = original) -> Any:
            asked.append(set(posts))
            return original(self, posts)

        monkeypatch.setattr(kind, name, spy)
    module = make(kind, corpus_folder, tokenizer_folder)
    module.setup("fit")
    seen = set().union(*asked)
    module.setup("test")
    tested = {post for batch in module.test_dataloader() for post in batch["post_ids"]}
    assert tested
    assert not tested & seen


@EACH
def test_evaluation_batches_have_whole_pairs_and_whole_posts(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    module = make(kind, corpus_folder, tokenizer_folder)
    module.setup("validate")
    names: Counter[tuple[str, str]] = Counter()
    for batch in module.val_dataloader():
        pairs = len(batch["post_ids"])
        names.update(zip(batch["post_ids"], batch["criteria"], strict=True))
        assert batch["pair_index"].unique().tolist() == list(range(pairs))
        read = batch.get("row_windows", torch.arange(len(batch["input_ids"])))
        assert len(batch["pair_index"]) == len(read)
        assert read.unique().tolist() == list(range(len(batch["input_ids"])))
        assert batch["input_ids"].shape[1] <= 32
        if "offsets" in batch:
            assert batch["offsets"].shape == (len(read), batch["input_ids"].shape[1], 2)
            for pair, post in enumerate(batch["post_ids"]):
                inside = batch["offsets"][batch["pair_index"] == pair].flatten(0, 1)
                covered = {place for start, end in inside.tolist() if start >= 0 for place in range(start, end)}
                text = module.corpus.posts[post]
                assert covered == {place for place, sign in enumerate(text) if not sign.isspace()}
    assert names == Counter((pair.post_id, pair.criterion) for pair in module.val_pairs)


@EACH
def test_fingerprint_depends_only_on_the_evaluation_data(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    def of(**changed: Any) -> str:
        module = make(kind, corpus_folder, tokenizer_folder, **changed)
        module.setup("validate")
        return module.fingerprint

    assert of() == of(max_length=24, stride=2, batch_size=2, negative_ratio=0.5)
    other_criteria = of(criteria=None, aliases={"SAD": "DEPRESSED_MOOD", "TIRED": "FATIGUE"}, max_length=128)
    assert len({of(), of(seed=1), of(val_fraction=0.3), other_criteria}) == 4


@EACH
def test_draw_seed_changes_only_the_draws_of_an_epoch(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    def epoch(**changed: Any) -> tuple[list[int], PairDataModule]:
        module = make(kind, corpus_folder, tokenizer_folder, **changed)
        module.setup("fit")
        drawn = [token for batch in module.train_dataloader() for token in batch["input_ids"].flatten().tolist()]
        return drawn, module

    (plain, module), (same, _), (other, moved) = epoch(), epoch(draw_seed=17), epoch(draw_seed=18)
    assert plain == same != other
    assert module.fingerprint == moved.fingerprint
    assert list(module.val_pairs) == list(moved.val_pairs)


@EACH
def test_fingerprint_is_the_same_in_all_stages(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    found = []
    for warm_start in ("fit", "validate", "test"):
        module = make(kind, corpus_folder, tokenizer_folder)
        module.setup(warm_start)
        found.append(module.fingerprint)
    assert len(set(found)) == 1


@EACH
def test_training_batches_are_the_same_with_and_without_workers(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        aug = Augmentation(enabled=True, p_apply=0.5)
        module = make(kind, corpus_folder, tokenizer_folder, num_workers=workers, aug=aug)
        module.setup("fit")
        return list(module.train_dataloader())

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) > 3
    assert any(batch["augmented"].any() for batch in alone)
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_negatives_are_redrawn_each_epoch_by_the_ratio(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, negative_ratio=0.5)
    module.setup("fit")
    sampler: Any = module.train_dataloader().sampler
    kept = set(module._samples.kept.tolist())
    drawn = [{draw.index for batch in sampler.batches(epoch) for draw in batch} - kept for epoch in range(3)]
    assert len(drawn[0]) == len(drawn[1]) == module._samples.drawn
    assert drawn[0] != drawn[1]
    assert module._samples.drawn == round(
        0.5 * sum(target.label == 1 for number in kept for target in module._samples[number].targets.values())
    )


@EACH
def test_class_counts_are_those_of_an_epoch(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path
) -> None:
    module = make(kind, corpus_folder, tokenizer_folder, negative_ratio=0.5)
    module.setup("fit")
    shown = windows = 0
    for batch in module.train_dataloader():
        labels = batch["labels"] if kind is not EvidenceDataModule else batch["start_positions"]
        windows += len(labels)
        shown += int((labels.reshape(len(labels), -1)[:, 0] > 0).sum())
    assert module.class_counts == (windows - shown, shown)


def test_predict_needs_no_annotations(corpus_folder: Path, tokenizer_folder: Path) -> None:
    for kind in (CriteriaDataModule, EvidenceDataModule, JointDataModule):
        module = make(kind, corpus_folder, tokenizer_folder, annotations=None)
        module.setup("predict")
        batches = list(module.predict_dataloader())
        assert sum(len(batch["post_ids"]) for batch in batches) == 80
        unknown = {"labels", "met", "spans", "start_positions", "end_positions", "evidence_known"}
        assert not unknown & set(batches[0])
        assert ("offsets" in batches[0]) == (kind is not CriteriaDataModule)
        with pytest.raises(InputError, match=r"--data\.annotations"):
            module.setup("fit")


def test_all_invalid_values_are_reported_at_once(corpus_folder: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        make(
            CriteriaDataModule,
            corpus_folder,
            tokenizer_folder,
            batch_size=0,
            eval_batch_size=-1,
            negative_ratio=-0.5,
            val_fraction=1.5,
            num_workers=-1,
        )
    flags = [problem.split(":")[0] for problem in caught.value.problems]
    assert flags == [
        "--data.batch_size",
        "--data.eval_batch_size",
        "--data.negative_ratio",
        "--data.val_fraction",
        "--data.num_workers",
    ]


def test_max_length_too_small_for_the_criteria_is_an_error(corpus_folder: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.max_length: 12 is too small"):
        make(CriteriaDataModule, corpus_folder, tokenizer_folder, max_length=12, stride=8).setup("fit")


def test_stride_of_a_whole_window_is_an_error(corpus_folder: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.stride: got 32; it must be below --data\.max_length, 32"):
        make(CriteriaDataModule, corpus_folder, tokenizer_folder, stride=32)


def test_flag_problems_need_no_instance_and_not_all_flags() -> None:
    assert PairDataModule.flag_problems({"batch_size": 0, "test_fraction": 2.0}) == [
        "--data.batch_size: got 0; it must be 1 or more",
        "--data.test_fraction: got 2.0; it must be above 0 and below 1",
    ]
    assert PairDataModule.flag_problems({}) == []


def test_refuse_windows_checks_another_encoder(
    corpus_folder: Path, tokenizer_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    module.refuse_windows(tokenizer, 24, 8)
    with pytest.raises(InputError, match=r"--data\.max_length: 24 is too small.*or --data\.stride must be below 17"):
        module.refuse_windows(tokenizer, 24, 20)


def test_windows_left_out_are_counted_and_logged(
    corpus_folder: Path, tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning_hpo")
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder, max_length=11, stride=0)
    module.setup("fit")
    assert any("training windows" in name for name in module.counts)
    assert all(module.counts.values())
    assert all(f"{name} {count}" in caplog.text for name, count in module.counts.items())


@EACH
def test_split_without_positives_is_an_error(
    kind: type[PairDataModule], corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv
) -> None:
    annotations = str(write_csv("annotations.csv", [_HEADER, ("p0", "sad", "SAD", "1")]))

    def problems(stage: str, **changed: Any) -> list[str]:
        module = make(kind, corpus_folder, tokenizer_folder, annotations=annotations, **changed)
        with pytest.raises(InputError) as caught:
            module.setup(stage)
        return [problem.partition(" cannot")[0] for problem in caught.value.problems]

    assert problems("fit") == [f"--data.annotations: the {name} split" for name in ("validation", "test")]
    # A study of version 0.1.0 may have an unusable test split: it is refused when it is scored.
    assert problems("fit", split_rule="hash") == ["--data.annotations: the validation split"]
    assert problems("test", split_rule="hash") == ["--data.annotations: the test split"]


def test_only_criteria_need_negatives(corpus_folder: Path, tokenizer_folder: Path, write_csv: WriteCsv) -> None:
    rows = [(f"p{number}", "w", "SAD", "1") for number in range(40)]
    annotations = str(write_csv("annotations.csv", [_HEADER, *rows]))
    arguments: dict[str, Any] = {"annotations": annotations, "leave_out": ("TIRED",)}
    with pytest.raises(InputError, match="training split cannot measure any criterion: its 22 posts have SAD 22"):
        make(CriteriaDataModule, corpus_folder, tokenizer_folder, **arguments).setup("fit")
    make(EvidenceDataModule, corpus_folder, tokenizer_folder, **arguments).setup("fit")


def test_split_sizes_are_counted_and_logged(
    corpus_folder: Path, tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning_hpo")
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    sizes = module.split_sizes
    assert {name: size.posts for name, size in sizes.items()} == {"train": 22, "val": 10, "test": 8}
    assert sizes["val"].total == sum(pair.met for pair in module.val_pairs)
    assert f"split (stratified): train 22 posts with {sizes['train'].total} positives, val 10 posts" in caplog.text


def test_measures_are_arguments() -> None:
    assert set(signature(PairDataModule).parameters) >= PairDataModule.MEASURES
    assert issubclass(PairDataModule, LightningDataModule)


def test_train_dataset_takes_draws(corpus_folder: Path, tokenizer_folder: Path) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    assert module._train_dataset[[Draw(0, 0)]]["labels"].shape == (1,)


@EACH
def test_datasets_are_pickled_for_workers_that_are_not_forked(
    kind: Any, corpus_folder: Path, tokenizer_folder: Path
) -> None:
    module: Any = make(kind, corpus_folder, tokenizer_folder, draw_seed=1)
    module.setup("fit")
    module.trainer = object()  # a Trainer cannot be pickled, and no worker needs it
    module.unpicklable = lambda: None
    for loader in (module.train_dataloader(), module.val_dataloader()):
        batch = next(iter(loader))
        place = next(iter(loader.sampler))
        again = pickle.loads(pickle.dumps(loader.dataset))[place]
        assert torch.equal(again["input_ids"], batch["input_ids"])


def test_largest_ids_are_those_of_windows(
    corpus_folder: Path, tokenizer_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    module = make(CriteriaDataModule, corpus_folder, tokenizer_folder)
    module.setup("fit")
    largest = max(int(batch["input_ids"].max()) for batch in module.train_dataloader())
    assert largest <= module.largest_ids[0] == len(tokenizer) - 1
    assert module.largest_ids[1] == 1


@EACH
def test_home_folder_is_expanded_in_paths(kind: type[PairDataModule], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    module = kind(posts="~/posts.csv", annotations="~/annotations.csv", criteria="~/criteria.yaml", tokenizer="a")
    assert (module.posts, module.annotations) == ("/home/me/posts.csv", "/home/me/annotations.csv")
    assert module.criteria == "/home/me/criteria.yaml"
    assert kind(posts="posts.csv", tokenizer="a").annotations is None
