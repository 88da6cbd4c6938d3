"""The heads: from the encoder's hidden states to the logits of a window (criteria) or of each token (evidence)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["CriteriaHead", "EvidenceHead", "Pooling", "TokenHead", "WindowHead"]

Activation = Literal["gelu", "relu", "silu", "tanh"]
PoolingName = Literal["cls", "mean", "max", "attention"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
_POOLINGS = ("cls", "mean", "max", "attention")


@dataclass(frozen=True)
class _HeadSettings(Settings):
    FLAG: ClassVar[str] = "--model.head"

    layers: int = 1
    hidden: int = 256
    activation: Activation = "gelu"
    dropout: float = 0.1

    def problems(self) -> list[str]:
        found = outside(f"{self.FLAG}.layers", self.layers, 0, 8)
        found += outside(f"{self.FLAG}.hidden", self.hidden, 1, 16384)
        found += outside(f"{self.FLAG}.dropout", self.dropout, 0, 0.95)
        if self.activation not in _ACTIVATIONS:
            found.append(f"{self.FLAG}.activation: got {self.activation!r}; there are {', '.join(_ACTIVATIONS)}")
        return found

    def mlp(self, width: int) -> nn.Sequential:
        """Build the layers from `width` features to two logits."""
        parts: list[nn.Module] = [nn.Dropout(self.dropout)]
        for _ in range(self.layers):
            parts += [nn.Linear(width, self.hidden), _ACTIVATIONS[self.activation](), nn.Dropout(self.dropout)]
            width = self.hidden
        return nn.Sequential(*parts, nn.Linear(width, 2))


@dataclass(frozen=True)
class EvidenceHead(_HeadSettings):
    """The layers between the encoder and the two logits (start, end) of each token.

    Args:
        layers: Hidden layers before the output; 0 is a linear head.
        hidden: Width of a hidden layer.
        activation: What follows a hidden layer.
        dropout: Dropout before every layer of the head.
    """

    layers: int = 0


@dataclass(frozen=True)
class CriteriaHead(_HeadSettings):
    """The layers between the encoder and the two logits (not met, met) of a window.

    Args:
        layers: Hidden layers before the output; 0 is a linear head.
        hidden: Width of a hidden layer.
        activation: What follows a hidden layer.
        dropout: Dropout before every layer of the head.
        pooling: How a window's tokens become one vector: the first token, mean, max, or a learnt weighting.
    """

    pooling: PoolingName = "cls"

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = super().problems()
        if self.pooling not in _POOLINGS:
            found.append(f"{self.FLAG}.pooling: got {self.pooling!r}; there are {', '.join(_POOLINGS)}")
        return found


class Pooling(nn.Module):
    """Make one vector of a window's tokens; padding never counts.

    Args:
        name: cls, mean, max or attention.
        width: Features of a token.
    """

    def __init__(self, name: PoolingName, width: int) -> None:
        super().__init__()
        self.name = name
        self.weigh = nn.Linear(width, 1) if name == "attention" else None

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool `hidden` [B, T, H] under `mask` [B, T] to [B, H]."""
        if self.name == "cls":
            return hidden[:, 0]
        kept = mask.unsqueeze(-1).bool()
        if self.name == "max":
            return _masked(hidden, kept).amax(dim=1)
        if self.weigh is not None:
            weights = _masked(self.weigh(hidden), kept).softmax(dim=1)
        else:
            weights = kept.to(hidden.dtype) / kept.sum(dim=1, keepdim=True)
        pooled: Tensor = (weights * hidden).sum(dim=1)
        return pooled


def _masked(values: Tensor, kept: Tensor) -> Tensor:
    # By the values' own type: autocast makes a layer's output narrower than its input.
    return values.masked_fill(~kept, torch.finfo(values.dtype).min)


class WindowHead(nn.Module):
    """Two logits a window: not met, met."""

    def __init__(self, settings: CriteriaHead, width: int) -> None:
        super().__init__()
        self.pooling = Pooling(settings.pooling, width)
        self.layers = settings.mlp(width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Give logits [B, 2] for `hidden` [B, T, H] under `mask` [B, T]."""
        logits: Tensor = self.layers(self.pooling(hidden, mask))
        return logits


class TokenHead(nn.Module):
    """Two logits a token: the evidence starts here, ends here."""

    def __init__(self, settings: EvidenceHead, width: int) -> None:
        super().__init__()
        self.layers = settings.mlp(width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - one call for every head
        """Give logits [B, T, 2] for `hidden` [B, T, H]."""
        logits: Tensor = self.layers(hidden)
        return logits
