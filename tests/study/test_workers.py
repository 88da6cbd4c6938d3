import ctypes
import multiprocessing
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from lightning_hpo.study import workers as module
from lightning_hpo.study.workers import LocalWorkers, ProcessExit, _watch_study


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    """A server that has imported nothing yet is enough here, and there at once; one that runs already is taken."""
    before = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    forkserver.ensure_running()
    yield
    if forkserver._forkserver._forkserver_pid != before:  # type: ignore[attr-defined]
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # each study of a later test would import all


@pytest.fixture
def workers() -> Iterator[LocalWorkers]:
    workers = LocalWorkers(2)
    yield workers
    workers.kill()
    for key in workers.running:
        workers.release(key)
    workers.reap()


OnGpus = Callable[..., LocalWorkers]


@pytest.fixture
def on_gpus() -> Iterator[OnGpus]:
    """Makes workers on gpus that are names only."""
    made: list[LocalWorkers] = []

    def make(count: int, gpus: Sequence[str], per_gpu: int = 1) -> LocalWorkers:
        made.append(LocalWorkers(count, gpus, per_gpu))
        return made[-1]

    yield make
    for workers in made:
        workers.kill()
        for key in workers.running:
            workers.release(key)
            workers.reap()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trial_0" / "log.txt"


def _count(first: int, last: int, pipe: Connection) -> None:
    for number in range(first, last):
        pipe.send(number)


def _print(pipe: Connection) -> None:
    print("in Python", flush=True)
    os.system("echo in a program; echo on stderr >&2")
    pipe.send("printed")


def _raise(pipe: Connection) -> None:
    del pipe
    raise RuntimeError("planted")


def _exit(code: int, pipe: Connection) -> None:
    del pipe
    sys.exit(code)


def _kill_itself(number: int, pipe: Connection) -> None:
    pipe.send("last message")
    os.kill(os.getpid(), number)


def _die_while_speaking(pipe: Connection) -> None:
    os.write(pipe.fileno(), struct.pack("!i", 100) + b"half a mess")
    os.kill(os.getpid(), signal.SIGKILL)


def _leave_a_child(pipe: Connection) -> None:
    child = os.fork()  # as a DataLoader does; it keeps this end of the pipe
    while not child:
        signal.pause()
    pipe.send(child)
    pipe.send("last message")
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_ever(pipe: Connection) -> None:
    pipe.send("ready")
    while True:
        signal.pause()


def _signal_itself(number: int, pipe: Connection) -> None:
    os.kill(os.getpid(), number)
    pipe.send("still here")


def _ask(pipe: Connection) -> None:
    pipe.send("what is it?")
    pipe.send(("received", pipe.recv()))


def _answer_for_ever(pipe: Connection) -> None:
    _ask(pipe)
    while True:
        signal.pause()


def _linger(path: Path, pipe: Connection) -> None:
    pipe.send("done")
    time.sleep(0.2)
    path.touch()


def _exit_when(path: Path, pipe: Connection) -> None:
    pipe.send("done")
    while not path.exists():
        time.sleep(0.01)


def _is_there(path: Path, pipe: Connection) -> None:
    pipe.send(path.exists())


def _hold(path: str, pipe: Connection) -> None:
    with Path(path).open("w"):
        _wait_for_ever(pipe)


def _all(workers: LocalWorkers) -> list[tuple[Any, Any]]:
    messages: list[tuple[Any, Any]] = []
    while workers.running:
        messages += workers.wait()
    return messages


def test_messages_arrive_in_order_with_their_key(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _count, 0, 3, log=log)
    workers.start("b", _count, 7, 9, log=log)
    assert (workers.free, sorted(workers.running)) == (0, ["a", "b"])
    messages = _all(workers)
    assert [message for key, message in messages if key == "a"] == [0, 1, 2, ProcessExit(0)]
    assert [message for key, message in messages if key == "b"] == [7, 8, ProcessExit(0)]
    assert workers.free == 2


def test_release_frees_a_worker(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _count, 0, 1, log=log)
    assert workers.wait() == [("a", 0)]
    workers.release("a")
    workers.reap()
    assert (workers.free, workers.running) == (2, [])


def test_request_is_answered(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _ask, log=log)
    assert workers.wait() == [("a", "what is it?")]
    workers.reply("a", 42)
    assert workers.wait() == [("a", ("received", 42))]


def test_reply_to_an_exited_process_is_dropped(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _kill_itself, signal.SIGKILL, log=log)
    assert workers.wait() == [("a", "last message")]
    workers._running["a"][0].join()
    workers.reply("a", 42)
    assert workers.wait() == [("a", ProcessExit(-signal.SIGKILL))]


def test_next_process_on_a_gpu_starts_after_the_exit_of_the_last(on_gpus: OnGpus, log: Path, tmp_path: Path) -> None:
    workers = on_gpus(1, ["0"])
    workers.start("a", _linger, tmp_path / "gone", log=log)
    assert workers.wait() == [("a", "done")]
    workers.release("a")
    assert (workers.free, workers.running) == (1, [])
    workers.start("b", _is_there, tmp_path / "gone", log=log)
    assert workers.wait() == [("b", True)]


def test_answers_do_not_wait_for_a_process_that_is_exiting(on_gpus: OnGpus, log: Path, tmp_path: Path) -> None:
    workers = on_gpus(3, ["0", "1", "2"])
    workers.start("a", _answer_for_ever, log=log)
    assert workers.wait() == [("a", "what is it?")]
    workers.start("b", _exit_when, tmp_path / "go", log=log)
    assert workers.wait() == [("b", "done")]
    exiting = workers._running["b"].process
    workers.release("b")
    workers.start("c", _send_gpu_and_wait, log=log)
    assert workers.wait() == [("c", "2")]  # the third GPU
    workers.start("d", _send_gpu_and_wait, log=log)
    workers.reply("a", 42)
    assert workers.wait() == [("a", ("received", 42))]
    assert (workers.free, exiting.is_alive()) == (0, True)
    (tmp_path / "go").touch()
    assert workers.wait() == [("d", "1")]
    assert not exiting.is_alive()


def test_process_that_never_exits_is_killed_for_the_next_one(
    on_gpus: OnGpus, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_hpo.study.workers._LEAVING_S", 0.1)
    workers = on_gpus(1, ["0"])
    workers.start("a", _exit_when, tmp_path / "never", log=log)
    assert workers.wait() == [("a", "done")]
    workers.release("a")
    workers.start("b", _send_gpu, log=log)
    assert workers.wait() == [("b", "0")]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_stop_and_kill_drop_a_process_that_has_not_started(
    on_gpus: OnGpus, log: Path, tmp_path: Path, how: str
) -> None:
    workers = on_gpus(1, ["0"])
    workers.start("a", _exit_when, tmp_path / "go", log=log)
    assert workers.wait() == [("a", "done")]
    workers.release("a")
    workers.start("b", _send_gpu, log=log)
    assert (workers.free, workers.running) == (0, ["b"])
    getattr(workers, how)()
    assert workers.running == ["b"]
    assert workers.wait() == [("b", ProcessExit(-signal.SIGTERM))]
    assert workers.running == []
    for key, before in (("c", lambda: None), ("d", getattr(workers, how))):
        workers.start(key, _send_gpu, log=log)
        before()
        workers.release(key)
    assert (workers.free, workers.running) == (1, [])
    (tmp_path / "go").touch()


def test_wait_ends_after_its_timeout(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _wait_for_ever, log=log)
    assert workers.wait() == [("a", "ready")]
    assert workers.wait(0) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGSEGV, "killed by SIGSEGV")],
)
def test_exit_of_a_killed_process_follows_its_last_message(
    workers: LocalWorkers, log: Path, number: signal.Signals, reason: str
) -> None:
    workers.start("a", _kill_itself, number, log=log)
    [message, (key, exited)] = _all(workers)
    assert message == ("a", "last message")
    assert (key, exited, exited.reason) == ("a", ProcessExit(-number), reason)


def test_process_killed_while_sending_has_exited(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _die_while_speaking, log=log)
    assert _all(workers) == [("a", ProcessExit(-signal.SIGKILL))]


def test_exit_is_seen_while_a_child_holds_the_pipe(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _leave_a_child, log=log)
    [(_, child)] = workers.wait()
    try:
        assert [workers.wait(20), workers.wait(20)] == [[("a", "last message")], [("a", ProcessExit(-signal.SIGKILL))]]
    finally:
        os.kill(child, signal.SIGKILL)


def test_ended_process_prints_its_frames_and_has_the_given_reason(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _wait_for_ever, log=log)
    assert workers.wait() == [("a", "ready")]
    workers.print_frames("a")
    end = time.monotonic() + 60
    while "in _wait_for_ever" not in log.read_text():
        assert time.monotonic() < end
    workers.end("a", "no sign of life")
    [(key, exited)] = _all(workers)
    assert (key, exited.exitcode, exited.reason) == ("a", -signal.SIGKILL, "no sign of life")
    workers.end("b", "a process that has exited before")


def test_process_that_does_not_exit_when_killed_blocks_nobody(
    workers: LocalWorkers, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAVING_S", 0.1)
    for key in "ab":
        workers.start(key, _wait_for_ever, log=log)
        assert workers.wait() == [(key, "ready")]
    processes = [workers._running[key].process for key in "ab"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda *arguments: None)  # as if it hung in the kernel
        workers.end("a", "no sign of life")
        while not (messages := workers.wait(0.1)):
            assert workers.free == 0
        assert messages == [("a", ProcessExit(-signal.SIGKILL, killed_for="no sign of life"))]
        assert workers.free == 1
        workers.release("b")
        workers.reap()
    assert [process.is_alive() for process in processes] == [True, True]
    assert not {*processes} & {*multiprocessing.active_children()}  # the exit of Python does not wait for them
    for process in processes:
        process.kill()


def test_exit_code_is_returned(workers: LocalWorkers, log: Path) -> None:
    workers.start("a", _exit, 3, log=log)
    [(_, exited)] = _all(workers)
    assert exited.reason == "its process exited with code 3"


def test_output_is_appended_to_the_log(workers: LocalWorkers, log: Path) -> None:
    log.parent.mkdir()
    log.write_text("before\n")
    assert workers.call(_print, log=log) == "printed"
    assert log.read_text().splitlines() == ["before", "in Python", "in a program", "on stderr"]


def test_exception_is_in_the_log(workers: LocalWorkers, log: Path) -> None:
    assert workers.call(_raise, log=log) == ProcessExit(1)
    assert log.read_text().splitlines()[-1] == "RuntimeError"  # its message may quote data


def test_call_returns_the_message_and_leaves_no_process(workers: LocalWorkers, log: Path) -> None:
    assert workers.call(_count, 5, 6, log=log) == 5
    assert workers.call(_kill_itself, signal.SIGKILL, log=log) == "last message"
    assert workers.running == []


@pytest.mark.parametrize(("how", "number"), [("stop", signal.SIGTERM), ("kill", signal.SIGKILL)])
def test_stop_and_kill_end_every_process(workers: LocalWorkers, log: Path, how: str, number: signal.Signals) -> None:
    for key in ("a", "b"):
        workers.start(key, _wait_for_ever, log=log)
    ready: list[Any] = []
    while len(ready) < 2:
        ready += workers.wait()
    getattr(workers, how)()
    assert dict(_all(workers)) == {"a": ProcessExit(-number), "b": ProcessExit(-number)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_processes_ignore_what_a_terminal_sends_to_the_group(
    workers: LocalWorkers, log: Path, number: signal.Signals
) -> None:
    assert workers.call(_signal_itself, number, log=log) == "still here"


def test_number_of_a_process_that_has_exited_is_not_signaled(
    workers: LocalWorkers, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start("a", _exit, 0, log=log)
    workers.start("b", _wait_for_ever, log=log)
    workers._running["a"].process.join()  # its number may be that of another program now
    signaled: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda pid, number: signaled.append(pid))
        workers.stop()
        workers.kill()
    assert signaled == [workers._running["b"].process.pid] * 2


_SERVER = """
import os, signal, sys
from multiprocessing import forkserver
from pathlib import Path
from lightning_hpo.study.workers import LocalWorkers
from tests.study.test_workers import _all, _wait_for_ever
forkserver.ensure_running()
workers = LocalWorkers(1)
workers.start("a", _wait_for_ever, log=Path(sys.argv[1]))
assert workers.wait() == [("a", "ready")]
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
[(_, exited)] = _all(workers)
print(exited.with_server, exited.reason)
"""


def test_process_that_exits_with_its_server_is_told_apart(log: Path) -> None:
    command = [sys.executable, "-c", _SERVER, str(log)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True the server of the trial processes has exited\n"


def test_process_that_exits_with_the_code_of_a_lost_one_is_not(workers: LocalWorkers, log: Path) -> None:
    assert workers.call(_exit, 255, log=log) == ProcessExit(255, with_server=False)


def _send_gpu(pipe: Connection) -> None:
    pipe.send(os.environ.get("CUDA_VISIBLE_DEVICES"))


def _send_gpu_and_wait(pipe: Connection) -> None:
    _send_gpu(pipe)
    while True:
        signal.pause()


def test_each_process_sees_only_its_gpu(on_gpus: OnGpus, log: Path) -> None:
    workers = on_gpus(4, ["0", "GPU-5f"], 2)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    for key in "abcd":
        workers.start(key, _send_gpu_and_wait, log=log)
    received: dict[Any, Any] = {}
    while len(received) < 4:
        received |= dict(workers.wait())
    assert received == workers.leases == {"a": "0", "b": "GPU-5f", "c": "0", "d": "GPU-5f"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_workers_are_limited_by_the_gpus(on_gpus: OnGpus, log: Path) -> None:
    workers = on_gpus(9, ["0", "1"])
    assert (workers.count, workers.free) == (2, 2)
    for key in "ab":
        workers.start(key, _send_gpu_and_wait, log=log)
    assert workers.free == 0
    with pytest.raises(RuntimeError, match="each of the GPUs 0, 1 has 1 processes"):
        workers.start("c", _send_gpu, log=log)
    assert sorted(workers.running) == ["a", "b"]


def test_process_without_a_gpu_sees_what_the_study_sees(workers: LocalWorkers, log: Path) -> None:
    assert workers.call(_send_gpu, log=log) == os.environ.get("CUDA_VISIBLE_DEVICES")
    assert workers.leases == {}


def test_preflight_gets_a_gpu(on_gpus: OnGpus, log: Path) -> None:
    workers = on_gpus(1, ["3"])
    assert [workers.call(_send_gpu, log=log) for _ in range(2)] == ["3", "3"]
    assert workers.leases == {}


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_no_gpu_gets_more_processes_than_allowed(on_gpus: OnGpus, log: Path, per_gpu: int) -> None:
    workers, draw = on_gpus(9, ["0", "1", "2"], per_gpu), random.Random(17)
    received: dict[int, str] = {}
    for number in range(60):
        if not workers.free:
            ended = draw.choice(list(received))  # killed, as by the kernel, or after its last message
            os.kill(workers._running[ended][0].pid or 0, signal.SIGKILL)
            while ended in workers.running:
                for key, message in workers.wait():
                    if isinstance(message, ProcessExit):
                        del received[key]
        workers.start(number, _send_gpu_and_wait, log=log)
        [(key, gpu)] = workers.wait()
        received[key] = gpu
        assert received == workers.leases
        assert max(Counter(received.values()).values()) <= per_gpu
    assert len(received) == 3 * per_gpu


_STUDY = """
import sys
from multiprocessing import forkserver
from pathlib import Path
from lightning_hpo.study.workers import LocalWorkers
from tests.study.test_workers import _hold
forkserver.ensure_running()
workers = LocalWorkers(1)
workers.start("a", _hold, sys.argv[1], log=Path(sys.argv[2]))
print(workers.wait(), flush=True)
sys.stdin.read()
"""


def _hold_without_a_signal(path: str, pipe: Connection) -> None:
    """Hold a file as on macOS, where the system sends a process no signal when its parent exits."""
    ctypes.CDLL(None).prctl(1, 0)
    _watch_study()
    _hold(path, pipe)


@pytest.mark.parametrize("target", ["_hold", "_hold_without_a_signal"])
def test_no_process_outlives_its_study(tmp_path: Path, log: Path, target: str) -> None:
    life = tmp_path / "life"
    os.mkfifo(life)
    reading = os.open(life, os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-c", _STUDY.replace("_hold", target), str(life), str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout is not None
        assert study.stdout.readline() == "[('a', 'ready')]\n"
        study.kill()
    # The end of the pipe is seen when the process that holds its other end is gone.
    assert select.select([reading], [], [], 20)[0] == [reading]
    assert os.read(reading, 1) == b""
    os.close(reading)
