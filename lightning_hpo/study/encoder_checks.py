"""Checks of the encoders that a search space names, with the extreme values of the flags that depend on them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_hpo.agents.network.encoder import (
    check_reinit_layers,
    checkpoint_gradients,
    freeze_layers,
    load_encoder,
)
from lightning_hpo.agents.network.encoder_checks import (
    FirstToken,
    check_first_token,
    check_ids,
    check_length,
    check_longest_window,
    check_text_encoder,
)
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.pair_template import largest_ids
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.serving.flavor import export_network
from lightning_hpo.study.encoder_revisions import NAME, REVISION
from lightning_hpo.study_folder import TrialFolder

__all__ = ["BY_ENCODER", "EncoderChecks"]

BY_ENCODER = (
    NAME,
    "model.dropout",
    "model.attention_dropout",
    "model.freeze_layers",
    "model.reinit_layers",
    "model.gradient_checkpointing",
    "model.head.pooling",
    "data.max_length",
    "data.stride",
)
"""Flags whose values are checked against the encoder."""


@dataclass(frozen=True)
class EncoderChecks:
    """Checks of all encoders of a search space.

    Args:
        agent: An agent with the head of the study.
        data: Its data module, with its data.
        folder: Folder for exported networks; None if no network is to be exported.
    """

    agent: TextAgent
    data: Any
    folder: TrialFolder | None

    def problems(self, values: Mapping[str, Any], corners: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return why encoders refuse extreme values, one line each.

        Args:
            values: Values of the config by flag.
            corners: Extreme values of the flags of `BY_ENCODER`, in every combination that a trial may have.
        """
        by_name: dict[str, list[dict[str, Any]]] = {}
        for corner in corners:
            given = {flag: corner.get(flag, values.get(flag)) for flag in (*BY_ENCODER, REVISION)}
            by_name.setdefault(given[NAME], []).append(given)
        rehearsed = values.get(NAME)
        return [
            f"search_space: with the encoder {name}: {problem}"
            for name, own in by_name.items()
            for problem in self._problems_of(name, own, exports=name != rehearsed)
        ]

    def _problems_of(self, name: str, corners: Sequence[Mapping[str, Any]], *, exports: bool) -> list[str]:
        most = {flag: max((c[flag] for c in corners if c[flag] is not None), default=None) for flag in BY_ENCODER}
        try:
            revision = corners[0][REVISION]
            tokenizer = load_tokenizer(name, revision)
            dropouts = {flag: most[f"model.{flag}"] for flag in ("dropout", "attention_dropout")}
            encoder = load_encoder(name, revision=revision, **dropouts)
            check_text_encoder(name, encoder)
        except InputError as error:
            return error.problems
        problems = _refusal(freeze_layers, encoder, most["model.freeze_layers"] or 0)
        new = [(corner["model.reinit_layers"] or 0, corner["model.freeze_layers"] or 0) for corner in corners]
        problems += _refusal(check_reinit_layers, encoder, *max(new, key=sum)) if any(count for count, _ in new) else []
        if most["model.gradient_checkpointing"]:
            problems += _refusal(checkpoint_gradients, encoder)
        head = self.agent.make_head(encoder.config.hidden_size)
        problems += _refusal(check_first_token, encoder, _use_of_first_token(head, corners))
        problems += _refusal(check_ids, encoder, *largest_ids(tokenizer))
        if isinstance(self.data, PairDataModule):
            problems += _refusal(check_length, encoder, most["data.max_length"])
            for lengths in sorted({(corner["data.max_length"], corner["data.stride"]) for corner in corners}):
                problems += _refusal(self.data.refuse_windows, tokenizer, *lengths)
        if problems:
            return problems
        network = self.agent.network_class(encoder, head).eval()
        if most["data.max_length"] is not None:
            problems += _refusal(check_longest_window, encoder, most["data.max_length"])
        if exports and self.folder is not None and not problems:
            problems += self._export_problems(network, tokenizer)
        return problems

    def _export_problems(self, network: TextNetwork, tokenizer: Any) -> list[str]:
        folder = self.folder
        if folder is None:
            return []
        folder.path.mkdir(parents=True)
        try:
            export_network(network, tokenizer, folder.path / "network")
        except LightningHpoError as error:
            return str(error).splitlines()[:1]
        finally:
            shutil.rmtree(folder.path)
        return []


def _use_of_first_token(head: nn.Module, corners: Sequence[Mapping[str, Any]]) -> FirstToken:
    use: FirstToken = getattr(head, "first_token", "unused")
    if use == "no evidence":
        return use
    return "pooled" if any(corner["model.head.pooling"] == "cls" for corner in corners) else "unused"


def _refusal(rule: Callable[..., None], *arguments: Any) -> list[str]:
    try:
        rule(*arguments)
    except InputError as error:
        return error.problems
    return []
