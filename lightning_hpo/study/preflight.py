"""Preflight of a study: its data, its encoders, and the rehearsal of a trial."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from lightning_hpo.agents.network.encoder import checkpoint_gradients, freeze_layers, load_encoder, longest_input
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.callbacks.resume_checkpoint import is_out_of_memory
from lightning_hpo.config.flags import flags
from lightning_hpo.data.augmentation.methods import load_methods
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.rehearsal import rehearse
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.run import unwritable
from lightning_hpo.trial.trainer import left_out

__all__ = ["BY_ENCODER", "Findings", "run_preflight"]

BY_ENCODER = (
    "model.name",
    "model.dropout",
    "model.attention_dropout",
    "model.freeze_layers",
    "model.gradient_checkpointing",
    "data.max_length",
    "data.stride",
)
"""Flags whose values are checked against the encoder."""


@dataclass(frozen=True)
class Findings:
    """Result of a preflight.

    Args:
        problems: What prevents the study, one line each.
        fingerprint: Fingerprint of data and split; None if the data module has none.
        counts: Counts of the data module, such as rows that were repaired or skipped, and windows.
        baselines: Score of each constant baseline on the validation split.
        precision: Precision of the trainer, which depends on the device if the config has `auto`.
        notices: What a trial does differently from the config, one line each.
    """

    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    precision: str = ""
    notices: list[str] = field(default_factory=list)


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
        corners: Extreme values of the flags of `BY_ENCODER`, in every combination that a trial may have.
        methods: Augmentation methods that the study may use.
        folder: Folder for the files of the rehearsal, which is deleted at the end.
        pipe: Connection to the study process.
    """
    try:
        findings = _preflight(config, settings, corners, methods, folder)
    except InputError as error:
        findings = Findings(problems=error.problems)
    except LightningHpoError as error:
        findings = Findings(problems=str(error).splitlines())
    except Exception as error:  # noqa: BLE001 - a trial would fail in the same way
        print("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__, file=sys.stderr)
        findings = Findings(problems=[_failure(error)])
    pipe.send(findings)


def _failure(error: Exception) -> str:
    """Return why one batch failed, without the message, which may quote post text."""
    if is_out_of_memory(error):
        return "--data.batch_size: one batch of training and validation is out of memory; use less, or shorter windows"
    if (number := unwritable(error)) is not None:
        return f"--study.outdir: cannot write: {os.strerror(number)}"
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"one batch of training and validation failed: {type(error).__name__} in {last.filename}, line {last.lineno}"


def _preflight(
    config: Mapping[str, Any],
    settings: StudySettings,
    corners: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    folder: TrialFolder,
) -> Findings:
    load_methods(methods)
    with rehearse(config, settings, folder) as rehearsal:
        data, model, precision = rehearsal.cli.datamodule, rehearsal.cli.model, rehearsal.cli.trainer.precision
    problems, notices = [], left_out(config)
    if rehearsal.export_problem:
        fatal = settings.register
        (problems if fatal else notices).append(
            f"--model: {rehearsal.export_problem}" + "; to search without it, use --study.register false" * fatal
        )
    baselines = getattr(model, "constant_answers", None)
    searched = [corner for corner in corners if corner] if isinstance(model, TextAgent) else []
    return Findings(
        problems=problems + _corner_problems(data, flags(config), searched),
        notices=notices,
        fingerprint=getattr(data, "fingerprint", None),
        counts=dict(getattr(data, "counts", {})),
        baselines={} if baselines is None else baselines(data.val_pairs, data.corpus.posts),
        precision=precision,
    )


def _refuse_length(max_length: int, encoder: Any) -> None:
    longest = longest_input(encoder.config)
    if longest is not None and max_length > longest:
        raise InputError(f"--data.max_length: {max_length} is more than the {longest} tokens that the encoder takes")


def _corner_problems(data: Any, values: Mapping[str, Any], corners: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why encoders of the search space refuse extreme values, one line each."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for corner in corners:
        given = {flag: corner.get(flag, values.get(flag)) for flag in BY_ENCODER}
        by_name.setdefault(given["model.name"], []).append(given)
    return [
        f"search_space: with the encoder {name}: {problem}"
        for name, own in by_name.items()
        for problem in _encoder_problems(name, data, own)
    ]


def _encoder_problems(name: str, data: Any, corners: Sequence[Mapping[str, Any]]) -> list[str]:
    most = {flag: max((c[flag] for c in corners if c[flag] is not None), default=None) for flag in BY_ENCODER}
    try:
        tokenizer = load_tokenizer(name)
        dropouts = {flag: most[f"model.{flag}"] for flag in ("dropout", "attention_dropout")}
        encoder = load_encoder(name, **dropouts)
    except InputError as error:
        return error.problems
    problems = _refusal(freeze_layers, encoder, most["model.freeze_layers"] or 0)
    if most["model.gradient_checkpointing"]:
        problems += _refusal(checkpoint_gradients, encoder)
    if isinstance(data, PairDataModule):
        problems += _refusal(_refuse_length, most["data.max_length"], encoder)
        for lengths in sorted({(corner["data.max_length"], corner["data.stride"]) for corner in corners}):
            problems += _refusal(data.refuse_windows, tokenizer, *lengths)
    return problems


def _refusal(rule: Callable[..., None], *arguments: Any) -> list[str]:
    try:
        rule(*arguments)
    except InputError as error:
        return error.problems
    return []
