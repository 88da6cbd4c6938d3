"""Preflight of a study: its data, its encoders, and the rehearsal of a trial."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from lightning_hpo.agents.baselines import baselines_of
from lightning_hpo.agents.post_scores import score_of
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.callbacks.resume_checkpoint import is_out_of_memory
from lightning_hpo.config.flags import flags
from lightning_hpo.data.augmentation.methods import load_methods
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.exceptions import InputError, LightningHpoError, NotFiniteError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.encoder_checks import EncoderChecks
from lightning_hpo.study.rehearsal import rehearse
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.run import unwritable
from lightning_hpo.trial.trainer import left_out

__all__ = ["Findings", "run_preflight"]


@dataclass(frozen=True)
class Findings:
    """Result of a preflight.

    Args:
        problems: What prevents the study, one line each.
        fingerprint: Fingerprint of data and split; None if the data module has none.
        counts: Counts of the data module, such as rows that were repaired or skipped, and windows.
        split_sizes: Posts and positives by criterion, by split; empty if the data module does not count them.
        baselines: Score of each baseline on the validation split.
        precision: Precision of the trainer, which depends on the device if the config has `auto`.
        notices: What a trial does differently from the config, one line each.
        failure: Exception of the module or the data, and its place; empty if there was none.
    """

    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    split_sizes: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    precision: str = ""
    notices: list[str] = field(default_factory=list)
    failure: str = ""


def run_preflight(
    config: Mapping[str, Any],
    settings: StudySettings,
    corners: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    folder: TrialFolder,
    pipe: Connection,
) -> None:
    """Rehearse a trial of the config, check the encoders of the search space, and send the `Findings`.

    Args:
        config: The resolved config.
        settings: Settings of the study.
        corners: Extreme values of the flags of `encoder_checks.BY_ENCODER`, in every combination that a trial may have.
        methods: Augmentation methods that the study may use.
        folder: Folder for the files of the rehearsal, which is deleted at the end.
        pipe: Connection to the study process.
    """
    try:
        findings = _preflight(config, settings, corners, methods, folder)
    except InputError as error:
        findings = Findings(problems=error.problems)
    except NotFiniteError as error:
        findings = Findings(problems=[f"--model: {error}, after one batch of training"])
    except LightningHpoError as error:
        findings = Findings(problems=str(error).splitlines())
    except Exception as error:  # noqa: BLE001 - a trial would fail in the same way
        print("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__, file=sys.stderr)
        findings = _failure(error)
    pipe.send(findings)


def _failure(error: Exception) -> Findings:
    """Return why one batch failed, without the message, which may quote post text."""
    if is_out_of_memory(error):
        line = "one batch of training and validation is out of memory"
        return Findings(problems=[f"--data.batch_size, --data.eval_batch_size: {line}; use less, or shorter windows"])
    if (number := unwritable(error)) is not None:
        return Findings(problems=[f"--study.outdir: cannot write: {os.strerror(number)}"])
    *_, last = traceback.extract_tb(error.__traceback__)
    return Findings(failure=f"{type(error).__name__} in {last.filename}, line {last.lineno}")


def _preflight(
    config: Mapping[str, Any],
    settings: StudySettings,
    corners: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    folder: TrialFolder,
) -> Findings:
    load_methods(methods)
    rehearsal = rehearse(config, settings, folder)
    data, model, precision = rehearsal.cli.datamodule, rehearsal.cli.model, rehearsal.cli.trainer.precision
    problems, notices = [], left_out(config)
    if rehearsal.export_problem:
        line = f"--model: {rehearsal.export_problem}"
        if settings.register:
            problems.append(f"{line}; to search without it, use --study.register false")
        else:
            notices.append(line)
    if isinstance(model, TextAgent):
        searched = EncoderChecks(model, data, folder if settings.register else None)
        problems += searched.problems(flags(config), [corner for corner in corners if corner])
    return Findings(
        problems=problems,
        notices=notices,
        fingerprint=getattr(data, "fingerprint", None),
        counts=dict(getattr(data, "counts", {})),
        split_sizes=_split_sizes(data) if isinstance(data, PairDataModule) else {},
        baselines={name: score_of(each) for name, each in baselines_of(model, data, "val").items()},
        precision=precision,
    )


def _split_sizes(data: PairDataModule) -> dict[str, Any]:
    return {name: asdict(size) for name, size in data.split_sizes.items()}
