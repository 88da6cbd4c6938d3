import os
from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.config import (
    config_digest,
    halve_batch,
    has_config,
    logged_config,
    restore_config,
    save_config,
)
from tests.tiny import tiny_config, write_tiny_encoder


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The resolved config of a study, with batches of 8 and 2."""
    monkeypatch.chdir(tmp_path)
    write_tiny_encoder(tmp_path / "encoder")
    config = tiny_config("CriteriaAgent", "CriteriaDataModule")
    config["data"]["init_args"] |= {"batch_size": 8, "eval_batch_size": 2}
    del config["search_space"]
    return AgentCLI(config, instantiate=False).values


def _batches(outbox: Outbox) -> tuple[int, int, int]:
    values = flags(read_yaml(outbox.folder.config.read_text()))
    return values["data.batch_size"], values["trainer.accumulate_grad_batches"], values["data.eval_batch_size"]


def test_batch_is_halved_down_to_one(outbox: Outbox, config: dict[str, Any]) -> None:
    save_config(outbox, config)
    assert [halve_batch(outbox) for _ in range(4)] == ["batches of 4", "batches of 2", "batches of 1", None]
    assert _batches(outbox) == (1, 8, 2)


def test_batch_of_a_validation_is_halved_alone(outbox: Outbox, config: dict[str, Any]) -> None:
    save_config(outbox, config)
    assert halve_batch(outbox, in_validation=True) == "validation batches of 1"
    assert halve_batch(outbox, in_validation=True) is None
    assert _batches(outbox) == (8, 1, 1)


@pytest.mark.parametrize("limit", [3, 0.5])
def test_batch_of_a_limited_validation_is_kept(outbox: Outbox, config: dict[str, Any], limit: float) -> None:
    config["trainer"]["limit_val_batches"] = limit
    save_config(outbox, config)
    assert halve_batch(outbox, in_validation=True) is None
    assert _batches(outbox) == (8, 1, 2)


def test_config_that_was_changed_in_the_folder_is_refused(
    study: optuna.Study, tracker: Tracker, tmp_path: Path
) -> None:
    study.set_user_attr(StudyKey.OUTDIR, str(tmp_path / "outputs" / "first"))
    trial = study.ask()
    trial.set_user_attr(TrialKey.CONFIG_DIGEST, config_digest("model: {}\n"))
    study.tell(trial, 0.5)
    folder = TrialFolder(tmp_path / "outputs" / "first" / "trial_0")
    folder.path.mkdir(parents=True)
    folder.config.write_text("model: {}\n")
    assert restore_config(study, study.trials[0], tracker) == folder.config
    folder.config.write_text("model: {class_path: os.system}\n")
    assert has_config(folder)
    assert not has_config(folder, trial.user_attrs[TrialKey.CONFIG_DIGEST])
    with pytest.raises(InputError, match=r"config.yaml: it is not the config that trial 0 was trained with") as caught:
        restore_config(study, study.trials[0], tracker)
    assert "os.system" not in str(caught.value)


def test_config_that_was_changed_in_mlflow_is_not_restored(
    study: optuna.Study, tracker: Tracker, run_id: str, tmp_path: Path
) -> None:
    study.set_user_attr(StudyKey.OUTDIR, str(tmp_path / "outputs" / "first"))
    tracker.log_config(run_id, {}, "model: {}\n")
    trial = study.ask()
    trial.set_user_attr(TrialKey.RUN_ID, run_id)
    trial.set_user_attr(TrialKey.CONFIG_DIGEST, config_digest("model: {}\n"))
    study.tell(trial, 0.5)
    assert logged_config(study, study.trials[0], tracker) == "model: {}\n"
    tracker.log_config(run_id, {}, "model: {class_path: other.Module}\n")
    with pytest.raises(InputError, match="is not the config that the trial was trained with"):
        restore_config(study, study.trials[0], tracker)
    assert not (tmp_path / "outputs" / "first").exists()


def test_copy_in_mlflow_that_is_no_config_is_refused(
    study: optuna.Study, tracker: Tracker, run_id: str, tmp_path: Path
) -> None:
    """Version 0.1.0 has stored no digest."""
    study.set_user_attr(StudyKey.OUTDIR, str(tmp_path / "outputs" / "first"))
    tracker.log_config(run_id, {}, "- model\n")
    trial = study.ask()
    trial.set_user_attr(TrialKey.RUN_ID, run_id)
    study.tell(trial, 0.5)
    with pytest.raises(InputError, match="is not a config"):
        logged_config(study, study.trials[0], tracker)


def test_pipe_in_place_of_a_config_counts_as_missing(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    os.mkfifo(folder.config)
    assert not has_config(folder)
    assert not has_config(folder, config_digest(""))


@pytest.mark.parametrize("damage", ["", "\0" * 20, "text", "- 1", "a: [", "[" * 100_000, " " * 2_000_000, None])
def test_damaged_config_counts_as_missing(tmp_path: Path, damage: str | None) -> None:
    folder = TrialFolder(tmp_path)
    folder.config.write_text("model: {}\n")
    assert has_config(folder)
    if damage is None:
        folder.config.unlink()
    else:
        folder.config.write_text(damage)
    assert not has_config(folder)
