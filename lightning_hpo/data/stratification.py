"""Iterative stratification of multi-label data (Sechidis, Tsoumakas and Vlahavas 2011)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["stratify"]

# Round to this many decimals, so that rounding errors do not decide.
_DECIMALS = 9


def stratify(labels: NDArray[np.bool_], shares: NDArray[np.float64], examples: int) -> NDArray[np.int64]:
    """Assign examples to splits so that each split has its share of every label, the rarest label first.

    The paper assigns the examples of a label one by one, in random order. Here the sizes that this gives are computed
    first. Then the first examples of the label belong to the first split, the next to the second, and so on. So an
    additional example moves few others.

    Args:
        labels: Labels of the first examples, shape [labelled examples, labels]. Examples must be in random order.
        shares: Share of the examples of each split, shape [splits]; their sum is 1.
        examples: Number of all examples. Those without a row in `labels` have no label.

    Returns:
        Index of the split of each example, shape [examples].
    """
    wanted, wanted_of_label = shares * examples, np.outer(labels.sum(axis=0), shares)
    splits = np.full(examples, -1)
    left = labels.sum(axis=0)
    while left.any():
        rarest = int(np.where(left > 0, left, examples + 1).argmin())
        members = np.flatnonzero(labels[:, rarest] & (splits[: len(labels)] < 0))
        sizes = _sizes(wanted_of_label[rarest], wanted, len(members))
        splits[members] = np.repeat(np.arange(len(shares)), sizes)
        wanted = wanted - sizes
        for split in range(len(shares)):
            wanted_of_label[:, split] -= labels[members[splits[members] == split]].sum(axis=0)
        left = left - labels[members].sum(axis=0)
    others = np.flatnonzero(splits < 0)
    splits[others] = np.repeat(np.arange(len(shares)), _sizes(wanted, wanted, len(others)))
    return splits


def _sizes(wanted_of_label: NDArray[np.float64], wanted: NDArray[np.float64], examples: int) -> NDArray[np.int64]:
    """Return how many examples each split gets if each example goes to the split that wants most of the label.

    Among equals, it goes to the split that wants most examples, then to the first.
    """
    earlier = np.arange(examples)[:, None]
    split = np.broadcast_to(np.arange(len(wanted)), (examples, len(wanted))).ravel()
    first, second = (np.round(each - earlier, _DECIMALS).ravel() for each in (wanted_of_label, wanted))
    chosen = np.lexsort((split, -second, -first))[:examples]
    return np.bincount(split[chosen], minlength=len(wanted))
