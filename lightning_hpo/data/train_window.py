"""Where a training sample comes from."""

from dataclasses import dataclass

from lightning_hpo.data.window_target import WindowTarget

__all__ = ["TrainWindow"]


@dataclass(frozen=True, slots=True)
class TrainWindow:
    """The tokens [first, stop) of a post, by its row, beside a criterion."""

    row: int
    criterion: str
    first: int
    stop: int
    target: WindowTarget
