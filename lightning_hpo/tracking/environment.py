"""Tags of a run that record the environment: package versions and git commit."""

import subprocess
from importlib import metadata

from lightning_hpo import __version__

__all__ = ["environment_tags"]

_PACKAGES = ("lightning", "optuna", "mlflow", "torch", "transformers", "torchmetrics")


def environment_tags() -> dict[str, str]:
    """Return package versions, and the commit if the current folder is in a git repository, as tags of a run."""
    tags = {f"version.{package}": metadata.version(package) for package in _PACKAGES}
    tags["version.lightning_hpo"] = __version__
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _git(*arguments: str) -> str:
    """Return the output of a git command, or nothing if it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
