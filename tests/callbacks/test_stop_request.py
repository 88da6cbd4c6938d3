import os
import signal

import pytest

from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from tests.callbacks.conftest import Fit, Terminator

pytestmark = pytest.mark.usefixtures("restored_signal_handler")


def test_training_without_a_request_finishes(fit: Fit) -> None:
    stop, counter = StopRequest(), Terminator("nowhere", 0, 0)
    stop.listen()
    assert fit([0.25, 0.5], [stop, counter]).current_epoch == 2
    assert len(counter.seen) == 2 * (4 + 4)


def test_signal_before_training_is_kept() -> None:
    stop = StopRequest()
    stop.listen()
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequestedError):
        stop.check()


def test_stop_can_be_granted_later() -> None:
    stop = StopRequest()
    stop.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
    stop.check(after_s=3600)
    with pytest.raises(StopRequestedError):
        stop.check(after_s=0)


def test_lightning_does_not_stop_before_the_request_is_granted(fit: Fit) -> None:
    stop, terminator = StopRequest(), Terminator("train", 0, 1)
    stop.listen()
    fit([0.25], [stop, terminator])
    assert stop.requested
    assert len(terminator.seen) == 4 + 4
