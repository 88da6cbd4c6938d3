"""The look at everything before a study writes anything: data, encoders, and one batch of training and validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_hpo.agents.encoder import load_encoder, longest_input
from lightning_hpo.agents.network import TextNetwork
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.config import AgentCLI
from lightning_hpo.data.augmentation.methods import load_methods
from lightning_hpo.data.tokenizers import load_tokenizer
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["Findings", "fly"]


@dataclass(frozen=True)
class Findings:
    """What the look found.

    Args:
        problems: What stands in the way, a line each.
        fingerprint: Fingerprint of data and split; None if the data module has none.
        counts: What the data module counted: rows repaired, rows left out, windows.
        constant_answers: Score of each constant answer on the validation part.
    """

    problems: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    constant_answers: Mapping[str, float] = field(default_factory=dict)


def fly(
    config: Mapping[str, Any], monitor: str, encoders: tuple[str, ...], methods: tuple[str, ...], pipe: Connection
) -> None:
    """Make everything that the config names, train and validate one batch, and send the `Findings`.

    Args:
        config: The resolved config.
        monitor: The metric that has to be logged.
        encoders: Every encoder that the study may use.
        methods: Every method of the augmentation that the study may use.
        pipe: The sending end.
    """
    try:
        findings = _look(config, monitor, encoders, methods)
    except InputError as error:
        findings = Findings(problems=error.problems)
    except MisconfigurationException as error:
        findings = Findings(problems=[f"--trainer: {str(error).splitlines()[0]}"])
    except LightningHpoError as error:
        findings = Findings(problems=str(error).splitlines())
    pipe.send(findings)


def _look(config: Mapping[str, Any], monitor: str, encoders: tuple[str, ...], methods: tuple[str, ...]) -> Findings:
    load_methods(methods)
    kwargs = {"fast_dev_run": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    cli = AgentCLI(config, trainer_kwargs=kwargs)
    _check_length(cli)
    cli.trainer.fit(cli.model, cli.datamodule)
    metrics = cli.trainer.callback_metrics
    if monitor not in metrics:
        logged = ", ".join(sorted(metrics)) or "nothing"
        raise InputError(
            f"--study.monitor: {monitor!r} is never logged by {type(cli.model).__name__}; logged are: {logged}"
        )
    for name in encoders:
        load_tokenizer(name)
        load_encoder(name)
    data, model = cli.datamodule, cli.model
    answers = getattr(model, "constant_answers", None)
    return Findings(
        fingerprint=getattr(data, "fingerprint", None),
        counts=dict(getattr(data, "counts", {})),
        constant_answers={} if answers is None else answers(data.val_pairs, data.corpus.posts),
    )


def _check_length(cli: AgentCLI) -> None:
    if not isinstance(cli.model, TextAgent) or not isinstance(cli.model.network, TextNetwork):
        return
    longest = longest_input(cli.model.network.encoder.config)
    if longest is not None and cli.datamodule.max_length > longest:
        raise InputError(
            f"--data.max_length: {cli.datamodule.max_length} is more than the {longest} tokens that the encoder takes"
        )
