"""How the evidence agent's answers are read from its logits: the settings."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["Decoding", "NullPolicy", "Rank"]

NullPolicy = Literal["none", "threshold", "ratio", "calibrated"]
Rank = Literal["sum", "product", "softmax"]

_NEVER = 1e38  # finite, also in float32


@dataclass(frozen=True)
class Decoding(Settings):
    """How answers are read from the logits.

    A span's score is the natural logarithm of how much more probable it is than "no evidence"; `rank` says what is
    probable. An answer whose score a null policy does not let pass is none, and a pair without any answer has
    "no evidence".

    Args:
        max_answer_tokens: Longest evidence span, in tokens.
        null_threshold: "No evidence" must beat the best span by more than this, in logits, for the policy threshold;
            the higher, the more evidence is found. The policy calibrated starts with it.
        null_policy: When there is no evidence: none (never), threshold (the score is below -null_threshold), ratio (the
            share is below null_ratio), or calibrated (as threshold, with what gives the highest val_metric on the
            validation part after each epoch; one number fitted to the pairs that it is scored on, so its val_metric
            flatters a little and the test part tells the truth).
        null_ratio: Least share p(span) / (p(span) + p(no evidence)) of an answer for the policy ratio, between 0 and 1.
        top_k: Most answers to a pair, the best first; each must pass the null policy.
        overlap: An answer is dropped if it shares more than this part of its characters with a better one
            (intersection over union, 0 to 1); acts where top_k is above 1.
        n_best: Spans of a pair, from all of its windows, among which the answers are sought, top_k at the least. Acts
            where top_k is above 1 or rank is softmax.
        rank: What makes a span probable: sum (start and end logits, as in SQuAD's evaluation), product (of the start's
            and the end's probability within their window), or softmax (of the sums over the n_best; the probabilities
            of a span that several windows show are added). They differ where a post has several windows.
    """

    FLAG: ClassVar[str] = "--model.decoding"

    max_answer_tokens: int = 200
    null_threshold: float = 0.0
    null_policy: NullPolicy = "threshold"
    null_ratio: float = 0.5
    top_k: int = 1
    overlap: float = 0.5
    n_best: int = 20
    rank: Rank = "sum"

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = outside(f"{self.FLAG}.max_answer_tokens", self.max_answer_tokens, 1, 1_000_000)
        found += outside(f"{self.FLAG}.null_threshold", self.null_threshold, -1e6, 1e6)
        found += outside(f"{self.FLAG}.null_ratio", self.null_ratio, 0.001, 0.999)
        found += outside(f"{self.FLAG}.top_k", self.top_k, 1, 1000)
        found += outside(f"{self.FLAG}.overlap", self.overlap, 0, 1)
        found += outside(f"{self.FLAG}.n_best", self.n_best, 1, 1000)
        for name, value, known in (("null_policy", self.null_policy, NullPolicy), ("rank", self.rank, Rank)):
            if value not in get_args(known):
                found.append(f"{self.FLAG}.{name}: got {value!r}; there are {', '.join(get_args(known))}")
        return found

    @property
    def threshold(self) -> float:
        """The highest log odds of "no evidence" against a span at which the span is an answer still.

        Every policy comes down to it: a share of r is log odds of log((1 - r) / r), and "never" is a number that only
        the infinite odds of a span that does not exist are above.
        """
        if self.null_policy == "none":
            return _NEVER
        if self.null_policy == "ratio":
            return math.log((1 - self.null_ratio) / self.null_ratio)
        return self.null_threshold

    @property
    def candidates(self) -> int:
        """How many spans of a pair have to be known, so that its answers are."""
        return max(self.n_best, self.top_k) if self.top_k > 1 or self.rank == "softmax" else 1
