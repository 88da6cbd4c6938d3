"""Faults that make scores wrong: each test injects one and checks that it is reported."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule, PairDataModule
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.posts import read_posts
from tests.fault_agents import TWIN
from tests.hub import write_hub
from tests.study_sandbox import StudySandbox
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]
Rows = list[list[str]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hub")
    DemoCorpus(20, 17).write(folder)
    write_hub(folder, list(read_posts(folder / "posts.csv").values()))
    return str(next((folder / "models--roberta-base" / "snapshots").iterdir()))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """30 posts, and one more with the text of the first post in capitals."""
    folder = tmp_path / "data"
    folder.mkdir()
    DemoCorpus(30, 17).write(folder)
    first = next(iter(read_posts(folder / "posts.csv").values()))
    _change(folder / "posts.csv", lambda rows: rows.append([TWIN, first.upper()]))
    return folder


def _change(path: Path, change: Callable[[Rows], Any]) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _config(encoder: str, *, data: str = "lightning_hpo.data.CriteriaDataModule", **model: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: f"data/{name}.csv" for name in ("posts", "annotations")}
    arguments |= {"criteria": "data/criteria.yaml", "max_length": 64, "stride": 16, "val_fraction": 0.3}
    return {
        "model": {"class_path": "tests.fault_agents.FaultyAgent", "init_args": {"name": encoder, **model}},
        "data": {"class_path": data, "init_args": arguments},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 0},
        "search_space": {"model.optim.lr": {"low": 1.0e-4, "high": 1.0e-3}},
        "study": {"register": False, "pruner": {"class_path": "optuna.pruners.NopPruner"}},
    }


def _run(sandbox: StudySandbox, trial: FrozenTrial) -> Run:
    return sandbox.client.get_run(trial.user_attrs["mlflow_run_id"])


def _no_database(sandbox: StudySandbox) -> bool:
    return not (sandbox.folder / "_optuna/dataaug.db").exists()


@pytest.mark.parametrize(
    ("leak", "message"),
    [
        (
            "post",
            "leak: the splits share 1 posts and 1 texts, and must share none; for example, the text of post 'demo_",
        ),
        ("text", "leak: the splits share 0 posts and 1 texts, and must share none; for example, the text of post '"),
    ],
)
def test_leak_between_splits_is_refused_before_the_study(
    sandbox: StudySandbox, corpus: Path, encoder: str, capsys: Captured, leak: str, message: str
) -> None:
    config = _config(encoder, data="tests.fault_agents.LeakyData")
    with unchanged(sandbox.folder, "leak.yaml"):
        assert sandbox.tune("leak", "--data.leak", leak, config=config) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert _no_database(sandbox)


def test_label_typos_are_reported_with_file_line_and_column(
    sandbox: StudySandbox, corpus: Path, encoder: str, capsys: Captured
) -> None:
    def mistype(rows: Rows) -> None:
        label, status = rows[0].index("DSM5_symptom"), rows[0].index("status")
        rows[1][label], rows[2][status] = "LEEP_ISSUES", "2"

    _change(corpus / "annotations.csv", mistype)
    with unchanged(sandbox.folder, "typo.yaml"):
        assert sandbox.tune("typo", config=_config(encoder)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert (
        "annotations.csv, line 2, column DSM5_symptom: 'LEEP_ISSUES' is not a criterion; did you mean SLEEP" in lines[0]
    )
    assert "annotations.csv, line 3, column status: the status is neither 1 nor 0" in lines[1]
    assert _no_database(sandbox)


def test_non_finite_loss_or_metric_fails_the_trial(
    sandbox: StudySandbox, corpus: Path, encoder: str, capsys: Captured
) -> None:
    config = _config(encoder) | {"search_space": {"model.fault": {"choices": ["loss", "metric"]}}}
    # With this seed, the first two trials have one fault each.
    assert sandbox.tune("nan", "--study.max_failures", "2", "--study.seed", "1", config=config) == 1
    trials = {trial.params["model.fault"]: trial for trial in sandbox.trials("nan")}
    for fault, message in (
        ("loss", "train_loss is not finite in epoch 1"),
        ("metric", "val_metric is not finite in"),
    ):
        assert trials[fault].state == TrialState.FAIL
        assert trials[fault].user_attrs["ended_by"].startswith(message)
        run = _run(sandbox, trials[fault])
        assert (run.info.status, run.data.tags["ended_by"]) == ("FAILED", trials[fault].user_attrs["ended_by"])
    assert "2 trials in a row have failed" in capsys.readouterr().err


def test_collapse_and_data_counts_are_recorded_and_changed_data_are_refused(
    sandbox: StudySandbox, corpus: Path, encoder: str, capsys: Captured
) -> None:
    def contradict_and_miss(rows: Rows) -> None:
        status, text = rows[0].index("status"), rows[0].index("sentence_text")
        other, missing = list(rows[1]), list(rows[2])
        other[status] = "0" if rows[1][status] == "1" else "1"
        missing[text], missing[status] = "nobody ever wrote this", "1"
        rows.extend([other, missing])

    _change(corpus / "annotations.csv", contradict_and_miss)
    config = _config(encoder, fault="constant")
    assert sandbox.tune("flat", "--study.n_trials", "2", config=config) == 0
    output = capsys.readouterr().err
    counted = ["rows that contradict another, evidence wins 1", "evidence sentences not found in their post 1"]
    assert "nobody ever wrote" not in output
    assert output.count(", collapsed: it predicts the same for every input") == 2
    assert "baselines: always met 0." in output
    # The cost estimate is printed after the first trial only.
    first, rest = output.split("\ntrial 1 starts", 1)
    assert "\nexpected: about " in first
    assert "s for the last trial left (" in first
    assert "expected: " not in rest
    for trial in sandbox.trials("flat"):
        run = _run(sandbox, trial)
        assert trial.user_attrs["collapsed"] is True
        assert run.data.tags["collapsed"] == "true"
        assert run.data.metrics["val_mcc"] == 0.0
        by_criterion = [value for name, value in run.data.metrics.items() if name.startswith("val_f1_")]
        assert len(by_criterion) == 9
        assert all(math.isfinite(value) for value in by_criterion)  # the split has positives of each
        assert all(count in output and count in run.data.tags["data_counts"] for count in counted)
    _change(corpus / "posts.csv", lambda rows: rows[3].__setitem__(1, rows[3][1] + " More."))
    with unchanged(sandbox.folder, "flat.yaml"):
        assert sandbox.tune("flat", "--study.n_trials", "3", config=config) == 2
    assert "--study.name: flat was started with data_fingerprint " in capsys.readouterr().err
    assert len(sandbox.trials("flat")) == 2


@pytest.mark.parametrize("kind", [CriteriaDataModule, EvidenceDataModule])
def test_labels_of_the_test_split_do_not_affect_training_or_validation(
    corpus: Path, encoder: str, kind: type[PairDataModule]
) -> None:
    def module() -> PairDataModule:
        posts, annotations = (str(corpus / f"{name}.csv") for name in ("posts", "annotations"))
        files = {"posts": posts, "annotations": annotations, "tokenizer": encoder}
        # `stratified` reads all labels, but only to choose the posts.
        arguments: dict[str, Any] = {**files, "max_length": 64, "stride": 16, "test_fraction": 0.3}
        return kind(**arguments, split_rule="hash")

    def batches(data: PairDataModule) -> list[dict[str, Any]]:
        data.setup("fit")
        return [*data.train_dataloader(), *data.val_dataloader()]

    before = module()
    expected = batches(before)
    tested = set(before._read().test)

    def flip(rows: Rows) -> None:
        status = rows[0].index("status")
        for row in rows[1:]:
            row[status] = str(1 - int(row[status])) if row[0] in tested else row[status]

    _change(corpus / "annotations.csv", flip)
    after = module()
    found = batches(after)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        assert set(one) == set(other)
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
    assert after.fingerprint != before.fingerprint
