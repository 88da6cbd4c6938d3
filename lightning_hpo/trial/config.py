"""The config of a trial, in its folder and in its run."""

from typing import Any

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import as_yaml, flags, read_yaml
from lightning_hpo.study_folder import write_whole
from lightning_hpo.tracking.outbox import LogConfig, Outbox

__all__ = ["halve_batch", "save_config"]


def save_config(outbox: Outbox, config: dict[str, Any]) -> None:
    """Write the config into the trial's folder, and append it to the outbox, which sends it to MLflow."""
    text = as_yaml(config)
    outbox.append(LogConfig(config, text))
    write_whole(outbox.folder.config, text)


def halve_batch(outbox: Outbox) -> int | None:
    """Halve the trial's batch size and double its gradient accumulation.

    Returns:
        The new batch size; None, with nothing changed, if the config has no batch size that can be halved.
    """
    config = read_yaml(outbox.folder.config.read_text(encoding="utf-8"))
    values = flags(config)
    batch = values.get("data.batch_size")
    if not isinstance(batch, int) or batch < 2:
        return None
    accumulation = 2 * values["trainer.accumulate_grad_batches"]
    smaller = {"data.batch_size": batch // 2, "trainer.accumulate_grad_batches": accumulation}
    save_config(outbox, resolve(config, smaller))
    return batch // 2
