from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.trainer import build_trial, left_out, refused_flags

_CALLBACKS = "lightning.pytorch.callbacks"


def _callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{_CALLBACKS}.{name}", "init_args": arguments}


def _with(config: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    return {**config, "trainer": {"max_epochs": 2, "accelerator": "cpu", **trainer}}


LEFT_OUT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no checkpoints": (
        {"enable_checkpointing": False},
        ["--trainer.enable_checkpointing: false is ignored: a trial saves checkpoints"],
    ),
    "barebones": ({"barebones": True}, ["--trainer.barebones: true is ignored: a trial saves checkpoints"]),
    "a logger": (
        {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs"}}},
        ["--trainer.logger: CSVLogger is ignored: the study records params and metrics in MLflow"],
    ),
    "a folder": (
        {"default_root_dir": "x"},
        ["--trainer.default_root_dir: x is ignored: a trial writes to its own fol"],
    ),
    "progress bars": (
        {"callbacks": [_callback("RichProgressBar"), _callback("TQDMProgressBar")]},
        [
            "--trainer.callbacks: RichProgressBar is left out: the study shows its own progress",
            "--trainer.callbacks: TQDMProgressBar is left out: the study shows its own progress",
        ],
    ),
    "a summary": (
        {"enable_model_summary": False, "callbacks": _callback("RichModelSummary")},
        ["--trainer.callbacks: RichModelSummary is left out: the study shows its own progress"],
    ),
    "monitors that need a logger": (
        {"callbacks": [_callback("LearningRateMonitor"), _callback("DeviceStatsMonitor")]},
        [
            "--trainer.callbacks: LearningRateMonitor is left out: it needs a logger",
            "--trainer.callbacks: DeviceStatsMonitor is left out: it needs a logger",
        ],
    ),
    "checkpoints on exceptions": (
        {"callbacks": [_callback("OnExceptionCheckpoint", dirpath="crashes")]},
        ["--trainer.callbacks: OnExceptionCheckpoint is left out: with it, Lightning would choose"],
    ),
    "checkpoints elsewhere": (
        {"callbacks": [_callback("ModelCheckpoint", dirpath="models/mine")]},
        ["--trainer.callbacks: ModelCheckpoint writes to the folder of its trial, not to models/mine"],
    ),
    "nothing": (
        {"logger": True, "enable_progress_bar": False, "max_time": "01:00:00:00", "detect_anomaly": True},
        [],
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_trial_is_built_without_what_it_does_not_use_and_a_line_says_so(
    foreign_config: dict[str, Any], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer, lines = LEFT_OUT[case]
    config = _with(foreign_config, **trainer)
    found = left_out(config)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    built: Any = build_trial(config, TrialFolder(tmp_path / "trial_0"), [EarlyStopping("val_metric")]).trainer
    assert (built.loggers, built.progress_bar_callback, built.barebones) == ([], None, False)
    assert built.default_root_dir == str(tmp_path / "trial_0")
    assert built.checkpoint_callback is not None
    names = [type(callback).__name__ for callback in built.callbacks]
    assert not {"RichProgressBar", "RichModelSummary", "LearningRateMonitor", "DeviceStatsMonitor"} & set(names)
    assert "EarlyStopping" in names
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_of_callbacks_are_written_into_the_folder_of_the_trial(
    foreign_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callbacks = [
        _callback("ModelCheckpoint", dirpath="models/mine", filename="a"),
        _callback("Timer", duration="00:01:00:00"),
        _callback("ModelCheckpoint", filename="b", monitor="val_loss"),
    ]
    folder = TrialFolder(tmp_path / "trial_0")
    cli = build_trial(_with(foreign_config, callbacks=callbacks, max_epochs=1), folder)
    own: Any = cli.trainer
    assert any(isinstance(each, Timer) for each in own.callbacks)
    cli.train()
    assert len([each for each in own.callbacks if isinstance(each, ModelCheckpoint)]) == 2
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["trial_0/checkpoints/b.ckpt", "trial_0/checkpoints/mine/a.ckpt"]


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"fast_dev_run": True}, "--trainer.fast_dev_run: got true; such a training saves nothing"),
        ({"fast_dev_run": 3}, "--trainer.fast_dev_run: got 3; "),
        ({"overfit_batches": 0.1}, "--trainer.overfit_batches: got 0.1; "),
        ({"limit_val_batches": 0}, "--trainer.limit_val_batches: got 0; a trial needs validation batches"),
        ({"limit_train_batches": 0.0}, "--trainer.limit_train_batches: got 0.0; a trial needs training batches"),
    ],
)
def test_flags_with_which_no_trial_has_a_score_are_refused(trainer: dict[str, Any], line: str) -> None:
    [found] = refused_flags({"trainer": trainer})
    assert found.startswith(line)


def test_usual_flags_are_not_refused() -> None:
    assert refused_flags({"trainer": {"fast_dev_run": False, "overfit_batches": 0.0, "limit_val_batches": None}}) == []
