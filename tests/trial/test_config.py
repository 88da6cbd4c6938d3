from pathlib import Path
from typing import Any

import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.trial.config import halve_batch, save_config
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
