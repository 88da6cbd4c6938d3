"""Greedy soup: the mean of the weights of several seeds, as long as the validation score does not fall.

Wortsman et al. 2022, Model soups (arXiv 2203.05482), recipe 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lightning_hpo.storage.objective import Objective

__all__ = ["Soup", "State", "Step", "greedy_soup", "running_statistics"]

State = Mapping[str, Any]
"""The `state_dict` of a module."""


class _Scored(Protocol):
    @property
    def value(self) -> float: ...


_Evaluation = TypeVar("_Evaluation", bound=_Scored)


@dataclass(frozen=True)
class Step:
    """A step of the greedy soup.

    Args:
        seed: Seed whose weights were tried.
        score: Score of the mean of these weights and of those that were added before.
        added: Whether they were added to the soup.
    """

    seed: int
    score: float
    added: bool


@dataclass(frozen=True)
class Soup(Generic[_Evaluation]):
    """A greedy soup.

    Args:
        steps: One for each seed, in their order.
        best: What the evaluation of the final weights has returned.
    """

    steps: Sequence[Step]
    best: _Evaluation

    @property
    def seeds(self) -> list[int]:
        """The averaged seeds."""
        return [step.seed for step in self.steps if step.added]


def greedy_soup(
    seeds: Sequence[int],
    load: Callable[[int], State],
    evaluate: Callable[[State], _Evaluation],
    objective: Objective,
) -> Soup[_Evaluation]:
    """Start from the first seed, and add each further one whose weights do not worsen the score of the mean.

    Args:
        seeds: The seeds, the best first.
        load: Returns the weights of a seed.
        evaluate: Scores weights; its result has the score as `value`.
        objective: Whether a higher or a lower score is better.
    """
    weights = _Mean(load(seeds[0]))
    best = evaluate(weights.with_added())
    steps = [Step(seeds[0], best.value, added=True)]
    for seed in seeds[1:]:
        more = load(seed)
        found = evaluate(weights.with_added(more))
        added = math.isfinite(found.value) and not objective.is_better(best.value, found.value)
        steps.append(Step(seed, found.value, added))
        if added:
            weights.add(more)
            best = found
    return Soup(steps, best)


class _Mean:
    """Mean of states. Values that are no floating-point tensors, such as position ids, are those of the first state."""

    def __init__(self, first: State) -> None:
        self._first, self._count = first, 1
        # In float64, so that the mean of equal weights is these weights, bit by bit.
        self._sums = {name: value.to(torch.float64, copy=True) for name, value in first.items() if _is_averaged(value)}

    def add(self, state: State) -> None:
        """Add a state."""
        self._count += 1
        for name, total in self._sums.items():
            total += state[name]

    def with_added(self, state: State | None = None) -> State:
        """Return the mean, of one more state if it is given."""
        count = self._count + (state is not None)
        mean = dict(self._first)
        for name, total in self._sums.items():
            more = total if state is None else total + state[name]
            mean[name] = (more / count).to(self._first[name].dtype)
        return mean


def _is_averaged(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def running_statistics(module: nn.Module) -> str | None:
    """Return the name of a layer that keeps statistics of its inputs, as batch normalization does, or None.

    Statistics of several trainings say nothing about the activations of their mean weights.
    """
    names = (name for name, _ in module.named_buffers() if name.rpartition(".")[2] == "running_mean")
    return next((name.rpartition(".")[0] for name in names), None)
