"""The graphics cards of this machine that a study's processes are given."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["CardUse", "card_use", "device_problems", "leased_cards", "visible_cards"]

_ON_CARDS = ("auto", "gpu", "cuda")
# What CUDA takes of a card for each process beside its tensors, about; torch does not count it.
_CONTEXT_MIB = 512
# Of the card: what other processes, a screen and fragments take is not known beforehand.
_USABLE = 0.95


@dataclass(frozen=True)
class CardUse:
    """What a trial took of its graphics card.

    Args:
        reserved_mib: The most memory that its process has reserved for tensors.
        total_mib: That of the card.
    """

    reserved_mib: float
    total_mib: float

    @property
    def fitting(self) -> int:
        """How many such trials the card bears at the same time, at least the one that it bore."""
        return max(1, int(_USABLE * self.total_mib / (self.reserved_mib + _CONTEXT_MIB)))

    @property
    def advice(self) -> str:
        """The number in a line; a trial with another encoder, length or batch takes more or less."""
        taken, total = (mib / 1024 for mib in (self.reserved_mib + _CONTEXT_MIB, self.total_mib))
        return (
            f"it took {taken:.1f} of its card's {total:.1f} GiB: {self.fitting} like it fit on one "
            f"(--study.per_device {self.fitting})"
        )


def card_use(device: torch.device) -> CardUse | None:
    """What this process has taken of its card so far; None on another device."""
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    return CardUse(torch.cuda.max_memory_reserved(device) / 2**20, total / 2**20)


def visible_cards() -> tuple[str, ...]:
    """This machine's cards, as CUDA_VISIBLE_DEVICES names them; where that is set, the cards that it leaves."""
    count = torch.cuda.device_count()  # asks the driver's library; CUDA itself is left alone
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count]) if named else tuple(str(index) for index in range(count))


def leased_cards(
    devices: Sequence[int] | Literal["auto"], accelerator: object, cards: Sequence[str]
) -> tuple[str, ...]:
    """The cards that are given to processes, one each; none where processes are not given cards.

    Args:
        devices: The setting: places in `cards`, or "auto" for all where the trainer uses cards.
        accelerator: The trainer's.
        cards: The machine's.
    """
    if devices == "auto":
        return tuple(cards) if accelerator in _ON_CARDS else ()
    return tuple(cards[index] for index in devices if 0 <= index < len(cards))


def device_problems(
    devices: Sequence[int] | Literal["auto"],
    accelerator: object,
    cards: Sequence[str],
    *,
    workers: int,
    per_device: int,
) -> list[str]:
    """Why the workers cannot all have a card, a line each.

    Args:
        devices: The setting.
        accelerator: The trainer's.
        cards: The machine's.
        workers: Trials at the same time.
        per_device: Trials at the same time on a card.
    """
    found = []
    if devices != "auto":
        there = ", ".join(map(str, range(len(cards)))) or "none"
        found += [
            f"--study.devices: there is no graphics card {index}; there are: {there}"
            for index in devices
            if not 0 <= index < len(cards)
        ]
    count = len(leased_cards(devices, accelerator, cards))
    if not found and 0 < count * per_device < workers:
        found.append(
            f"--study.workers: {workers} is more than {count} card{'s' * (count > 1)} x {per_device}; raise "
            f"--study.per_device to {-(-workers // count)}, or use {count * per_device} workers or fewer"
        )
    return found
