"""Preflight of a study: its data, its encoders, and one batch of training and validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_hpo.agents.network.encoder import checkpoint_gradients, freeze_layers, load_encoder, longest_input
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import flags
from lightning_hpo.data.augmentation.methods import load_methods
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.exceptions import InputError, LightningHpoError

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
    """

    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    precision: str = ""


def run_preflight(
    config: Mapping[str, Any],
    monitor: str,
    corners: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    pipe: Connection,
) -> None:
    """Build everything that the config names, train and validate one batch, and send the `Findings`.

    Args:
        config: The resolved config.
        monitor: Metric that the module must log.
        corners: Extreme values of the flags of `BY_ENCODER`, in every combination that a trial may have.
        methods: Augmentation methods that the study may use.
        pipe: Connection to the study process.
    """
    try:
        findings = _preflight(config, monitor, corners, methods)
    except InputError as error:
        findings = Findings(problems=error.problems)
    except MisconfigurationException as error:
        findings = Findings(problems=[f"--trainer: {str(error).splitlines()[0]}"])
    except LightningHpoError as error:
        findings = Findings(problems=str(error).splitlines())
    pipe.send(findings)


def _preflight(
    config: Mapping[str, Any], monitor: str, corners: Sequence[Mapping[str, Any]], methods: Sequence[str]
) -> Findings:
    load_methods(methods)
    kwargs = {"fast_dev_run": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    cli = AgentCLI(config, trainer_kwargs=kwargs)
    if isinstance(cli.model, TextAgent) and isinstance(cli.model.network, TextNetwork):
        _refuse_length(cli.datamodule.max_length, cli.model.network.encoder)
    cli.trainer.fit(cli.model, cli.datamodule)
    metrics = cli.trainer.callback_metrics
    if monitor not in metrics:
        logged = ", ".join(sorted(metrics)) or "nothing"
        raise InputError(
            f"--study.monitor: {monitor!r} is never logged by {type(cli.model).__name__}; logged are: {logged}"
        )
    data, model = cli.datamodule, cli.model
    baselines = getattr(model, "constant_answers", None)
    searched = [corner for corner in corners if corner] if isinstance(model, TextAgent) else []
    return Findings(
        problems=_corner_problems(data, flags(config), searched),
        fingerprint=getattr(data, "fingerprint", None),
        counts=dict(getattr(data, "counts", {})),
        baselines={} if baselines is None else baselines(data.val_pairs, data.corpus.posts),
        precision=cli.trainer.precision,
    )


def _refuse_length(max_length: int, encoder: Any) -> None:
    longest = longest_input(encoder.config)
    if longest is not None and max_length > longest:
        raise InputError(f"--data.max_length: {max_length} is more than the {longest} tokens that the encoder takes")


def _corner_problems(data: Any, values: Mapping[str, Any], corners: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why encoders of the search space refuse extreme values, one line each."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for corner in corners:
        given = {flag: corner.get(flag, values.get(flag)) for flag in (*BY_ENCODER, "model.revision")}
        by_name.setdefault(given["model.name"], []).append(given)
    return [
        f"search_space: with the encoder {name}: {problem}"
        for name, own in by_name.items()
        for problem in _encoder_problems(name, data, own)
    ]


def _encoder_problems(name: str, data: Any, corners: Sequence[Mapping[str, Any]]) -> list[str]:
    most = {flag: max((c[flag] for c in corners if c[flag] is not None), default=None) for flag in BY_ENCODER}
    try:
        revision = corners[0].get("model.revision")
        tokenizer = load_tokenizer(name, revision)
        dropouts = {flag: most[f"model.{flag}"] for flag in ("dropout", "attention_dropout")}
        encoder = load_encoder(name, revision=revision, **dropouts)
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
