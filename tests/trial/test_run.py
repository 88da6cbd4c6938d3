"""The table of exceptions and outcomes."""

import errno
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from lightning_hpo.callbacks.stop_request import StopRequestedError
from lightning_hpo.exceptions import InputError, LightningHpoError, NotFiniteError
from lightning_hpo.trial.outcome import Outcome, OutcomeKind
from lightning_hpo.trial.remote_trial import StudyExitedError
from lightning_hpo.trial.run import outcome_of_exception


def _caused_by(cause: BaseException) -> RuntimeError:
    error = RuntimeError("PytorchStreamWriter failed writing file")
    error.__cause__ = cause
    return error


def _while_handling(context: BaseException) -> ValueError:
    error = ValueError("wrapped")
    error.__context__ = context
    return error


_FULL = "cannot write: No space left on device"
_TABLE: list[tuple[Exception, dict[str, Any]]] = [
    (StopRequestedError(), {"kind": OutcomeKind.INTERRUPTED, "reason": "interrupted"}),
    (StudyExitedError(), {"kind": OutcomeKind.INTERRUPTED, "reason": "the study process has exited"}),
    (BrokenPipeError(), {"reason": "BrokenPipeError"}),  # of a pipe of the model's own
    (OSError(errno.ENOSPC, "x"), {"kind": OutcomeKind.INTERRUPTED, "reason": _FULL, "stops_study": True}),
    (_caused_by(OSError(errno.ENOSPC, "x")), {"kind": OutcomeKind.INTERRUPTED, "reason": _FULL, "stops_study": True}),
    (
        _while_handling(_caused_by(OSError(errno.EROFS, "x"))),
        {"kind": OutcomeKind.INTERRUPTED, "reason": "cannot write: Read-only file system", "stops_study": True},
    ),
    (
        OSError(errno.EDQUOT, "x"),
        {"kind": OutcomeKind.INTERRUPTED, "reason": "cannot write: Disk quota exceeded", "stops_study": True},
    ),
    (torch.OutOfMemoryError("CUDA out of memory"), {"kind": OutcomeKind.OUT_OF_MEMORY, "reason": "out of memory"}),
    (MemoryError(), {"kind": OutcomeKind.OUT_OF_MEMORY, "reason": "out of memory"}),
    (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        {"kind": OutcomeKind.OUT_OF_MEMORY, "reason": "out of memory"},
    ),
    (NotFiniteError("train_loss is nan at epoch 1"), {"reason": "train_loss is nan at epoch 1"}),
    (InputError(["--data.posts: no such file", "second line"]), {"reason": "--data.posts: no such file"}),
    (LightningHpoError("one\ntwo"), {"reason": "one"}),
    (OSError(errno.EACCES, "x"), {"reason": "PermissionError"}),
    (RuntimeError("a post: I cannot sleep"), {"reason": "RuntimeError"}),
    (KeyError("a post"), {"reason": "KeyError"}),
]


@pytest.mark.parametrize(("error", "expected"), _TABLE, ids=lambda value: type(value).__name__)
def test_exception_has_an_outcome(error: Exception, expected: dict[str, Any]) -> None:
    try:
        raise error
    except Exception as raised:  # noqa: BLE001
        outcome = outcome_of_exception(raised, 2.5)
    failed = expected.get("kind", OutcomeKind.FAILED) is OutcomeKind.FAILED
    assert outcome == Outcome(
        **{"kind": OutcomeKind.FAILED, "runtime_s": 2.5, "traceback": outcome.traceback, **expected}
    )
    assert bool(outcome.traceback) == failed


def test_out_of_memory_in_validation_is_noted() -> None:
    outcome = outcome_of_exception(MemoryError(), 2.5, in_validation=True)
    assert outcome == Outcome(OutcomeKind.OUT_OF_MEMORY, reason="out of memory", runtime_s=2.5, in_validation=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated"), OutcomeKind.INTERRUPTED),
        (ConnectionResetError(), OutcomeKind.INTERRUPTED),
        (MemoryError(), OutcomeKind.INTERRUPTED),
    ],
)
def test_error_after_a_stop_request_is_an_interruption(error: Exception, kind: OutcomeKind) -> None:
    assert outcome_of_exception(error, 2.5, stopped=True) == Outcome(kind, reason="interrupted", runtime_s=2.5)


def test_message_is_shown_until_a_post_may_have_been_read() -> None:
    error = ImportError("No module named 'peft'; pip install peft\nand more")
    early = outcome_of_exception(error, 0.0, posts_read=False)
    assert early.reason == "ImportError: No module named 'peft'; pip install peft"
    assert outcome_of_exception(error, 0.0, posts_read=True).reason == "ImportError"


def test_message_of_a_data_module_is_never_shown() -> None:
    class Eager(LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            raise ValueError("a post: I cannot sleep")

    with pytest.raises(ValueError, match="a post") as raised:
        Eager()
    assert outcome_of_exception(raised.value, 0.0, posts_read=False).reason == "ValueError"


def test_traceback_has_frames_and_no_message() -> None:
    try:
        raise RuntimeError("a post: I cannot sleep")
    except RuntimeError as raised:
        outcome = outcome_of_exception(raised, 0.0)
    assert "test_traceback_has_frames_and_no_message" in outcome.traceback
    assert outcome.traceback.endswith("RuntimeError\n")
    assert outcome.traceback.count("I cannot sleep") == 1  # the source line of the test itself, never the message
