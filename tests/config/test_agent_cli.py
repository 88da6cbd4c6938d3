from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_hpo.cli import main
from lightning_hpo.config.agent_cli import AgentCLI, resolve
from lightning_hpo.config.flags import as_yaml, flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings
from tests.foreign import ForeignData, ForeignModule


@pytest.fixture
def file(tmp_path: Path, foreign_config: dict[str, Any]) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(foreign_config))
    return str(path)


def _trainer(cli: AgentCLI) -> Trainer:
    return cli.trainer


def test_any_module_is_created_from_class_paths_and_flags(file: str) -> None:
    cli = AgentCLI(["--config", file, "--model.lr", "0.5", "--data.rows", "32", "--trainer.max_epochs", "7"])
    assert isinstance(cli.model, ForeignModule)
    assert isinstance(cli.datamodule, ForeignData)
    assert (cli.model.lr, cli.datamodule.rows, _trainer(cli).max_epochs) == (0.5, 32, 7)


def test_without_instantiate_no_object_is_created(file: str) -> None:
    assert not hasattr(AgentCLI(["--config", file], instantiate=False), "trainer")


def test_parsing_the_values_returns_the_same_values(file: str, tmp_path: Path) -> None:
    values = AgentCLI(["--config", file, "--model.lr", "0.5"], instantiate=False).values
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(values))
    assert AgentCLI(["--config", str(again)], instantiate=False).values == values
    assert AgentCLI(values, instantiate=False).values == values
    assert {"hidden": 4, "lr": 0.5, "fails": False}.items() <= values["model"]["init_args"].items()
    assert values["seed_everything"] == 17


def test_the_sections_of_a_study_are_accepted_and_not_among_the_values(file: str, tmp_path: Path) -> None:
    sections = tmp_path / "study.yaml"
    space = {"model.lr": {"low": 0.1, "high": 1.0}}
    sections.write_text(yaml.safe_dump({"study": {"name": "first", "n_trials": 3}, "search_space": space}))
    arguments = ["--config", file, "--config", str(sections)]
    plain = AgentCLI(arguments, instantiate=False)
    assert not {"study", "search_space", "config"} & set(plain.values)
    cli = AgentCLI(arguments, instantiate=False, study=StudySettings)
    assert (cli.config.study.name, cli.config.study.n_trials, cli.config.search_space) == ("first", 3, space)


def test_augmentation_and_encoder_are_linked_to_the_data_module() -> None:
    config = {
        "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "some/encoder"}},
        "data": {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv"}},
        "aug": {"enabled": True},
    }
    cli = AgentCLI(config, instantiate=False)
    assert cli.config.data.init_args.tokenizer == "some/encoder"
    assert cli.values["aug"]["enabled"] is True
    # A linked value is not stored: it would contradict an encoder that is set later.
    assert "tokenizer" not in cli.values["data"]["init_args"]


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        ("model.lr", "fast", "--model.lr: Expected a float. Got value: fast"),
        ("model.lrr", 1, "--model.lrr: there is no such flag; did you mean model.lr?"),
        ("trainer.max_epohcs", 1, "--trainer.max_epohcs: there is no such flag; did you mean trainer.max_epochs?"),
    ],
)
def test_resolve_rejects_unknown_flags_and_wrong_types(
    foreign_config: dict[str, Any], flag: str, value: Any, problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(foreign_config, {flag: value})
    assert caught.value.problems == [problem]


def test_resolve_sets_flags_and_does_not_change_the_config(foreign_config: dict[str, Any]) -> None:
    before = yaml.safe_dump(foreign_config)
    overrides = {"model.hidden": 8, "data.rows": 16, "trainer.max_epochs": 5, "aug.enabled": True, "aug.p_apply": 0.2}
    resolved = flags(resolve(foreign_config, overrides))
    assert {flag: resolved[flag] for flag in overrides} == overrides
    assert resolved["trainer.logger"] is False
    assert yaml.safe_dump(foreign_config) == before


def test_callbacks_of_the_caller_are_added_to_those_of_the_config(foreign_config: dict[str, Any]) -> None:
    patience = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_metric"}}
    foreign_config["trainer"]["callbacks"] = [patience]
    foreign_config["trainer"]["max_epochs"] = 9
    own = Callback()
    callbacks = _trainer(AgentCLI(foreign_config, trainer_kwargs={"callbacks": [own], "max_epochs": 3}))
    assert own in callbacks.callbacks  # type: ignore[attr-defined]
    assert any(isinstance(callback, EarlyStopping) for callback in callbacks.callbacks)  # type: ignore[attr-defined]
    assert callbacks.max_epochs == 3


def _fit(file: str, folder: Path, *more: str) -> Sequence[ModelCheckpoint]:
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    cli = AgentCLI(
        ["fit", "--config", file, *quiet, "--trainer.default_root_dir", str(folder), *more],
        run=True,
    )
    return [callback for callback in cli.trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def test_fit_saves_the_best_epoch_by_val_metric(file: str, tmp_path: Path) -> None:
    [kept] = _fit(file, tmp_path)
    assert (kept.monitor, kept.mode) == ("val_metric", "max")
    assert Path(kept.best_model_path).name == "best.ckpt"
    assert Path(kept.best_model_path).is_file()


def test_a_checkpoint_callback_in_the_config_replaces_the_default_one(file: str, tmp_path: Path) -> None:
    config = tmp_path / "keeps.yaml"
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "mine"}}
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [own]}}))
    [kept] = _fit(file, tmp_path, "--config", str(config))
    assert Path(kept.best_model_path).name == "mine.ckpt"


def test_fit_saves_no_checkpoint_if_checkpointing_is_disabled(file: str, tmp_path: Path) -> None:
    assert _fit(file, tmp_path, "--trainer.enable_checkpointing", "false") == []


def test_fit_is_reproducible(file: str, tmp_path: Path) -> None:
    scores = [_fit(file, tmp_path / name)[0].best_model_score for name in ("one", "two")]
    assert scores[0] is not None
    assert scores[0] == scores[1]


def _line(file: str, folder: Path, *flags: str, **trainer: Any) -> str:
    more = folder / "more.yaml"
    more.write_text(yaml.safe_dump({"trainer": trainer}))
    with pytest.raises(InputError) as caught:
        _fit(file, folder / "run", "--config", str(more), *flags)  # `fit` saves its config there
    [line] = caught.value.problems
    assert "\n" not in line
    return line


def _callback(name: str, **arguments: Any) -> list[dict[str, Any]]:
    return [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}]


def test_errors_of_the_trainer_are_one_line_with_the_flag(file: str, tmp_path: Path) -> None:
    line = _line(file, tmp_path, strategy="none")
    assert line.startswith("--trainer.strategy: You selected an invalid strategy name: `strategy='none'`.")
    line = _line(file, tmp_path, callbacks=_callback("EarlyStopping", monitor="val_loss", mode="up"))
    assert line == "--trainer.callbacks: `mode` can be min, max, got up"
    line = _line(file, tmp_path, "--trainer.devices", "3")
    assert line.startswith("--trainer.devices: got 3; training uses one device")


def test_errors_of_a_training_are_one_line_with_the_flag(file: str, tmp_path: Path) -> None:
    line = _line(file, tmp_path, limit_train_batches=0.01)
    assert line.startswith("--trainer.limit_train_batches: You requested to check 0.01 of the `train_dataloader`")
    line = _line(file, tmp_path, callbacks=_callback("EarlyStopping", monitor="val_f1"))
    assert line.startswith("--trainer.callbacks: EarlyStopping: its monitor 'val_f1' is never logged; metrics: train_")


@pytest.mark.parametrize(
    ("name", "arguments"), [("Timer", {"duration": "00:01:00:00"}), ("StochasticWeightAveraging", {"swa_lrs": 0.1})]
)
def test_callbacks_with_defaults_that_yaml_cannot_hold_are_accepted(
    foreign_config: dict[str, Any], name: str, arguments: dict[str, Any]
) -> None:
    foreign_config["trainer"]["callbacks"] = _callback(name, **arguments)
    values = AgentCLI(foreign_config, instantiate=False).values
    assert type(_trainer(AgentCLI(values)).callbacks[0]).__name__ == name  # type: ignore[attr-defined]


def test_fit_resumes_from_a_checkpoint_of_its_own_module_only(file: str, tmp_path: Path) -> None:
    config = tmp_path / "keeps.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": _callback("ModelCheckpoint", filename="x")}}))
    [kept] = _fit(file, tmp_path, "--config", str(config))
    path = kept.best_model_path
    _fit(file, tmp_path, "--ckpt_path", path, "--trainer.max_epochs", "3")
    line = _line(file, tmp_path, "--ckpt_path", path, "--model.hidden", "8")
    assert line.startswith(f"--ckpt_path: {path} is of another model: 3 tensors have another shape")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_without_a_checkpoint_is_one_line(
    command: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--config", file]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --ckpt_path: required: without it, `{command}` would use an untrained model; give")
