"""The config of a trial, as it lies in its folder and in its run."""

from typing import Any

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import as_yaml, flags, read_yaml
from lightning_hpo.study_folder import CONFIG
from lightning_hpo.tracking.outbox import Outbox

__all__ = ["halve_batch", "keep_config"]


def keep_config(outbox: Outbox, config: dict[str, Any]) -> None:
    """Write the config into the trial's folder, whole or not at all, and note it for its run."""
    text = as_yaml(config)
    outbox.note("log_config", config=config, text=text)
    partial = outbox.folder / f"{CONFIG}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(outbox.folder / CONFIG)


def halve_batch(outbox: Outbox) -> int | None:
    """Give the trial half the batch and twice the accumulation.

    Returns:
        The new size of a batch; None, with nothing changed, where there is no batch to halve.
    """
    config = read_yaml((outbox.folder / CONFIG).read_text(encoding="utf-8"))
    values = flags(config)
    batch = values.get("data.batch_size")
    if not isinstance(batch, int) or batch < 2:
        return None
    accumulation = 2 * values["trainer.accumulate_grad_batches"]
    smaller = {"data.batch_size": batch // 2, "trainer.accumulate_grad_batches": accumulation}
    keep_config(outbox, resolve(config, smaller))
    return batch // 2
