"""What a window is trained towards."""

from dataclasses import dataclass

__all__ = ["IGNORED", "WindowTarget"]

# PyTorch's losses skip this label.
IGNORED = -100


@dataclass(frozen=True)
class WindowTarget:
    """Label and evidence of one window.

    Attributes:
        label: 1 where the window shows the evidence, 0 where it shows none of it, -100 where its border cuts it.
        spans: First and last token (inclusive, counted from the window's first token of the post) of each piece of
            evidence in the window; any of them is right.
        partial: Whether the evidence is the largest part of a sentence that no window holds whole.
    """

    label: int
    spans: tuple[tuple[int, int], ...] = ()
    partial: bool = False
