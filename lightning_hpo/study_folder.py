"""Names of the files in a trial's folder; apart, so that whoever looks at folders need not import Lightning."""

import shlex
from pathlib import Path

__all__ = ["BEST", "CONFIG", "LAST", "PARTIAL", "PREVIOUS", "RESUME", "fit_command"]

CONFIG = "config.yaml"
BEST = "best.ckpt"
LAST, PREVIOUS, PARTIAL = "last.ckpt", "previous.ckpt", "last.ckpt.partial"
RESUME = (LAST, PREVIOUS, PARTIAL)


def fit_command(config: Path) -> str:
    """The command that trains a trial again, from the first epoch."""
    return f"lightning-hpo fit --config {shlex.quote(str(config))}"
