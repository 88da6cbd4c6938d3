"""Files of a study and of its trials: `OUTDIR/STUDY/trial_N/...`; imports no Lightning."""

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "BEST",
    "CONFIG",
    "LAST",
    "OUTPUTS",
    "PARTIAL",
    "PREVIOUS",
    "StudyFolder",
    "TrialFolder",
    "fit_command",
    "make_folder",
    "open_without_wait",
    "read_file",
    "sync_folder",
    "write_whole",
]

CONFIG = "config.yaml"
BEST = "best.ckpt"
OUTPUTS = "outputs.npz"
_MOST_BYTES = 2**30
"""Size of the largest file that is read as a whole. Those of a million posts have a tenth of it."""
LAST, PREVIOUS, PARTIAL = "last.ckpt", "previous.ckpt", "last.ckpt.partial"


@dataclass(frozen=True)
class TrialFolder:
    """Files of one trial, in the folder `OUTDIR/STUDY/trial_N`."""

    path: Path

    @property
    def number(self) -> int:
        """Number of the trial."""
        return int(self.path.name.removeprefix("trial_"))

    @property
    def config(self) -> Path:
        """Resolved config of the trial."""
        return self.path / CONFIG

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.path / BEST

    @property
    def resume_files(self) -> tuple[Path, ...]:
        """Checkpoints that only an unfinished trial needs."""
        return tuple(self.path / name for name in (LAST, PREVIOUS, PARTIAL, f"{BEST}.partial"))

    @property
    def checkpoints(self) -> Path:
        """Files of the checkpoint callbacks in the user's config; Lightning's default folder for them."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """Output of the trial's processes."""
        return self.path / "log.txt"

    @property
    def sign_of_life(self) -> Path:
        """Empty file; the trial's process has modified it at its last sign of life."""
        return self.path / "sign_of_life"

    @property
    def outputs(self) -> Path:
        """Outputs of the best epoch by pair."""
        return self.path / OUTPUTS

    @property
    def post_scores(self) -> Path:
        """Scores of each validation by post."""
        return self.path / "post_scores.npz"

    @property
    def outcome(self) -> Path:
        """Final outcome that the study process has not read yet."""
        return self.path / "outcome.json"

    @property
    def outbox(self) -> Path:
        """Entries for MLflow. A trial that an earlier version has started keeps that version's file."""
        return self._renamed("journal.jsonl", "outbox.jsonl")

    @property
    def outbox_state(self) -> Path:
        """Position up to which the entries have been sent."""
        return self._renamed("journal.json", "outbox.json")

    def _renamed(self, old: str, new: str) -> Path:
        return self.path / old if (self.path / old).exists() else self.path / new


@dataclass(frozen=True)
class StudyFolder:
    """Files of a study, in the folder `OUTDIR/STUDY`."""

    path: Path

    @property
    def lock(self) -> Path:
        """Lock of the process that tunes the study; there as soon as a machine has used the folder."""
        return self.path / ".lock"

    @property
    def baselines(self) -> Path:
        """Scores of the baselines on the validation split, by post."""
        return self.path / "baselines.npz"

    @property
    def models_lock(self) -> Path:
        """Lock of the process that deletes or registers models."""
        return self.path / ".models.lock"

    @property
    def log(self) -> Path:
        """Lines that `tune` has shown, each with its time."""
        return self.path / "study.log"

    @property
    def preflight_log(self) -> Path:
        """Output of the preflight process."""
        return self.path / "preflight.log"

    @property
    def study_id(self) -> str | None:
        """Id of the study that the folder belongs to; None if it has none."""
        try:
            text = read_file(self.study_id_file).decode().strip()
        except (OSError, ValueError):
            return None
        return text if text.isalnum() else None  # a power cut may have left zeros

    @property
    def study_id_file(self) -> Path:
        """File with the id of the study."""
        return self.path / "study_id"

    def write_study_id(self, study_id: str) -> None:
        """Write the id of the study that the folder belongs to."""
        write_whole(self.study_id_file, f"{study_id}\n")

    @property
    def rehearsal(self) -> TrialFolder:
        """Folder of the preflight's trial, which is deleted at its end."""
        return TrialFolder(self.path / "preflight")

    def combined(self, kind: str) -> TrialFolder:
        """Return the folder of the soup or the ensemble of a refit, whether or not it exists."""
        return TrialFolder(self.path / kind)

    def trial(self, number: int) -> TrialFolder:
        """Return the folder of a trial, whether or not it exists."""
        return TrialFolder(self.path / f"trial_{number}")

    def trials(self) -> Iterator[TrialFolder]:
        """Yield the folders of trials that exist, without copies and archives that a user has made of them."""
        for path in sorted(self.path.glob("trial_*")):
            if path.name.removeprefix("trial_").isdecimal():
                yield TrialFolder(path)


def write_whole(path: Path, content: str | Callable[[BinaryIO], object], keep_as: Path | None = None) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, also after a power cut.

    Args:
        path: The file.
        content: Its text, or a function that writes it to an open file.
        keep_as: Path at which the old file is kept; None replaces it.
    """
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode())
        file.flush()
        os.fsync(file.fileno())  # otherwise the name may reach the disk before the content
    if keep_as is not None and path.exists():
        path.replace(keep_as)
    partial.replace(path)
    sync_folder(path.parent)


def read_file(path: Path, most: int = _MOST_BYTES) -> bytes:
    """Read a file of a study's folder, which others may write as well.

    Args:
        path: The file.
        most: Size of the largest file that is read.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it counts as damaged: a pipe, for which a reader would wait, a folder, or a file of any length.
    """
    handle = open_without_wait(str(path), os.O_RDONLY)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise ValueError(f"{path}: it is no file, or has more than {most:,} bytes")
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def open_without_wait(path: str, flags: int) -> int:
    """Open a file as `open` does, of which this is an `opener`. A pipe without another end does not block."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def make_folder(path: Path) -> None:
    """Create a folder, with its parents, that is still there after a power cut."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(path: Path) -> None:
    """Write the names of a folder's files to the disk."""
    names = os.open(path, os.O_RDONLY)
    try:
        os.fsync(names)
    finally:
        os.close(names)


def fit_command(config: Path) -> str:
    """Return the command that trains a config from the first epoch."""
    return f"lightning-hpo fit --config {shlex.quote(str(config))}"
