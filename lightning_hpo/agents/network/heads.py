"""Heads: from hidden states of the encoder to the logits of a window (criteria) or of each token (evidence)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_hpo.agents.network.encoder_checks import FirstToken
from lightning_hpo.agents.settings import Settings
from lightning_hpo.flag_types import Bounds

__all__ = ["CriteriaHead", "CriterionAttention", "EvidenceHead", "JointHead", "Pooling", "TokenHead", "WindowHead"]

Activation = Literal["gelu", "relu", "silu", "tanh"]
PoolingName = Literal["cls", "mean", "max", "attention", "last"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class _HeadSettings(Settings):
    FLAG: ClassVar[str] = "--model.head"

    layers: Annotated[int, Bounds(0, 8)] = 1
    hidden: Annotated[int, Bounds(1, 16384)] = 256
    activation: Activation = "gelu"
    dropout: Annotated[float, Bounds(0, 0.95)] = 0.1

    def mlp(self, width: int) -> nn.Sequential:
        """Build the layers from `width` features to two logits."""
        parts: list[nn.Module] = [nn.Dropout(self.dropout)]
        for _ in range(self.layers):
            parts += [nn.Linear(width, self.hidden), _ACTIVATIONS[self.activation](), nn.Dropout(self.dropout)]
            width = self.hidden
        return nn.Sequential(*parts, nn.Linear(width, 2))


@dataclass(frozen=True)
class EvidenceHead(_HeadSettings):
    """The layers from the encoder to the two logits (start, end) of each token.

    Args:
        layers: Number of hidden layers before the output layer; 0 is a linear head. Usual: 0 to 2.
        hidden: Width of a hidden layer, in features. Usual: 128 to 1024.
        activation: Activation function after each hidden layer.
        dropout: Dropout before each layer of the head. Usual: 0 to 0.3.
    """

    layers: Annotated[int, Bounds(0, 8)] = 0


@dataclass(frozen=True)
class CriteriaHead(_HeadSettings):
    """The layers from the encoder to the two logits (not met, met) of a window.

    Args:
        layers: Number of hidden layers before the output layer; 0 is a linear head. Usual: 0 to 2.
        hidden: Width of a hidden layer, in features. Usual: 128 to 1024.
        activation: Activation function after each hidden layer.
        dropout: Dropout before each layer of the head. Usual: 0 to 0.3.
        pooling: How to pool the tokens of a window into one vector: cls (the first token), mean, max, attention (a
            learned weighted mean), or last (the last token, which has read all others in causal models such as Llama).
    """

    pooling: PoolingName = "cls"


class Pooling(nn.Module):
    """Pool the tokens of a window, with `width` features each, into one vector, without the padding at its end."""

    def __init__(self, name: PoolingName, width: int) -> None:
        super().__init__()
        self.name = name
        self.weigh = nn.Linear(width, 1) if name == "attention" else None

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool `hidden` [B, T, H] under `mask` [B, T] to [B, H]."""
        if self.name == "cls":
            return hidden[:, 0]
        if self.name == "last":
            last = mask.long().sum(dim=1) - 1
            return hidden.gather(1, last.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])).squeeze(1)
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
    # Infinity, which every type has: under autocast a layer returns a narrower type than its input, and an exported
    # network would keep the smallest number of the type with which it was exported.
    return values.masked_fill(~kept, float("-inf"))


class WindowHead(nn.Module):
    """Head with two logits for each window: not met, met."""

    def __init__(self, settings: CriteriaHead, width: int) -> None:
        super().__init__()
        self.pooling = Pooling(settings.pooling, width)
        self.layers = settings.mlp(width)
        self.first_token: FirstToken = "pooled" if settings.pooling == "cls" else "unused"

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, 2] for `hidden` [B, T, H] under `mask` [B, T]."""
        logits: Tensor = self.layers(self.pooling(hidden, mask))
        return logits


class _Similarity(nn.Module):
    """Learned similarity of tokens and criteria, with `width` features each.

    Before training, it is the scaled dot product: random weights would need many more steps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.query, self.key):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, criteria: Tensor) -> Tensor:
        """Return [W, T, C] for `hidden` [W, T, H] and `criteria`, [C, H] or one for each window, [W, C, H]."""
        similarity: Tensor = self.key(hidden) @ self.query(criteria).transpose(-1, -2) / hidden.shape[-1] ** 0.5
        return similarity


class CriterionAttention(nn.Module):
    """Head that reads each window for each criterion: two logits for each of both, not met and met.

    Label-wise attention (Mullenbach et al. 2018), whose queries are the texts of the criteria in place of learned
    vectors, so that it can read for a criterion that it was not trained with. The tokens of a criterion are pooled into
    its query; the layers see what the query read, the query itself, and their product.
    """

    def __init__(self, settings: CriteriaHead, width: int) -> None:
        super().__init__()
        self.pooling = Pooling(settings.pooling, width)
        self.attention = _Similarity(width)
        self.layers = settings.mlp(3 * width)
        self.first_token: FirstToken = "pooled" if settings.pooling == "cls" else "unused"

    def forward(self, hidden: Tensor, mask: Tensor, criteria: Tensor, criterion_mask: Tensor) -> Tensor:
        """Return logits [W, C, 2] for windows, [W, T, H] under [W, T], and criteria, [C, S, H] under [C, S]."""
        pooled = self.pooling(criteria, criterion_mask)
        return self.decide(self.read(hidden, mask, pooled), pooled)

    def read(self, hidden: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        """Return what each criterion reads, [W, C, H], of windows, [W, T, H] under [W, T], with its query [C, H]."""
        weights = _masked(self.attention(hidden, pooled), mask.unsqueeze(-1).bool()).softmax(dim=1)
        return weights.transpose(1, 2) @ hidden

    def decide(self, read: Tensor, pooled: Tensor) -> Tensor:
        """Return logits [W, C, 2] for what the criteria have read, [W, C, H], and their queries [C, H]."""
        asked = pooled.expand_as(read)
        logits: Tensor = self.layers(torch.cat((read, asked, read * asked), dim=-1))
        return logits


class JointHead(CriterionAttention):
    """Head that reads each window for each criterion, and each of its tokens: is it met, and where is the evidence?

    The start logit of a token is its similarity to the criterion and what it has read, plus what the token alone says,
    such as that it is the first of a sentence; so is the end logit (biaffine attention, Dozat and Manning 2017). The
    tokens of a sentence know each other: what was read of it leads to its bounds.
    """

    def __init__(self, settings: CriteriaHead, width: int) -> None:
        super().__init__(settings, width)
        self.start, self.end = _Similarity(width), _Similarity(width)
        self.token = nn.Linear(width, 2)
        self.dropout = nn.Dropout(settings.dropout)
        self.first_token = "no evidence"

    def forward(self, hidden: Tensor, mask: Tensor, criteria: Tensor, criterion_mask: Tensor) -> Tensor:
        """Return logits [W, C, 1 + T, 2]: (not met, met) of the window, then (start, end) of each token.

        The inputs are those of `CriterionAttention`.
        """
        pooled = self.pooling(criteria, criterion_mask)
        read = self.read(hidden, mask, pooled)
        met, sought = self.decide(read, pooled), read + pooled
        dropped = self.dropout(hidden)
        matches = torch.stack((self.start(dropped, sought), self.end(dropped, sought)), dim=-1)
        spans = (matches + self.token(dropped).unsqueeze(2)).transpose(1, 2)
        return torch.cat((met.unsqueeze(2), spans), dim=2)


class TokenHead(nn.Module):
    """Head with two logits for each token: start and end of the evidence."""

    def __init__(self, settings: EvidenceHead, width: int) -> None:
        super().__init__()
        self.first_token: FirstToken = "no evidence"
        self.layers = settings.mlp(width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - all heads share one signature
        """Return logits [B, T, 2] for `hidden` [B, T, H]."""
        logits: Tensor = self.layers(hidden)
        return logits
