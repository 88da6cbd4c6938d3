import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

# A server in a new process: that of the tests may run already.
_START = """
import json, os, signal, sys, threading
from multiprocessing import forkserver
from pathlib import Path
from lightning_hpo.study import fork_server
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.terminal.library_output import collect_library_output
from lightning_hpo.terminal.standard_error import lasting_stderr
from tests.study.test_fork_server import _send_state, _hold
fork_server._PRELOADED = []
sys.imported = True
kept = open(sys.argv[1] + "/kept", "w")
print("before", end=" ")
with lasting_stderr(), collect_library_output():
    fork_server.start_server(forked=True)
    workers = LocalWorkers(1)
"""


def _run(code: str, folder: Path) -> tuple[int, str]:
    """Return the exit code of a study process, and what it has printed after the start of its server."""
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    before, _, after = done.stdout.partition("before ")
    assert before == ""
    return done.returncode, after


def _send_pid(pipe: Connection) -> None:
    pipe.send(os.getpid())


def _send_state(pipe: Connection) -> None:
    """Send what a process has of the process that its server was forked from."""
    open_files = {os.path.realpath(f"/proc/self/fd/{each.name}") for each in Path("/proc/self/fd").iterdir()}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    ours, theirs = context.Pipe()
    child = context.Process(target=_send_pid, args=(theirs,))  # a library may use a server of its own
    child.start()
    started = ours.recv() == child.pid
    child.join()
    pipe.send(
        {
            "imported": hasattr(sys, "imported"),
            "kept": any(path.endswith("/kept") for path in open_files),
            "stderr": sys.stderr is sys.__stderr__,
            "warnings": warnings.showwarning.__module__,
            "hangup": signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "child": started,
        }
    )


_STATE = """
    print(json.dumps(workers.call(_send_state, log=Path(sys.argv[1], "log.txt"))))
"""


def test_forked_server_has_the_imports_of_the_study_process_and_nothing_else(tmp_path: Path) -> None:
    code, printed = _run(_START + _STATE, tmp_path)
    assert code == 0
    assert json.loads(printed) == {
        "imported": True,
        "kept": False,
        "stderr": True,
        "warnings": "warnings",
        "hangup": False,
        "child": True,
    }
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == ""  # nor what it had not printed yet


def test_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    start = "    fork_server.start_server(forked=True)\n"
    thread = "    end = threading.Event(); threading.Thread(target=end.wait).start()\n"
    code, printed = _run((_START + _STATE).replace(start, thread + start) + "    end.set()\n", tmp_path)
    assert code == 0
    assert json.loads(printed)["imported"] is False


def _hold(path: str, pipe: Connection) -> None:
    """Hold a file open until this process exits."""
    with Path(path).open("w"):
        pipe.send("ready")
        while True:
            signal.pause()


_KILL = """
    workers.start("a", _hold, sys.argv[1] + "/life", log=Path(sys.argv[1], "log.txt"))
    assert workers.wait() == [("a", "ready")]
    os.kill(KILLED, signal.SIGKILL)
    [(_, exited)] = workers.wait()
    print(exited.reason)
"""


@pytest.mark.parametrize(
    ("killed", "code", "printed"),
    [
        ("os.getpid()", -signal.SIGKILL, ""),
        ("forkserver._forkserver._forkserver_pid", 0, "the server of the trial processes has exited\n"),
    ],
    ids=["study", "server"],
)
def test_no_process_outlives_its_study_or_a_forked_server(tmp_path: Path, killed: str, code: int, printed: str) -> None:
    life = tmp_path / "life"
    os.mkfifo(life)
    reading = os.open(life, os.O_RDONLY | os.O_NONBLOCK)
    assert _run(_START + _KILL.replace("KILLED", killed), tmp_path) == (code, printed)
    # The end of the pipe is seen when the process that holds its other end is gone.
    assert select.select([reading], [], [], 20)[0] == [reading]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_server_starts_with_a_long_temporary_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    code = (
        "import tempfile; from lightning_hpo.study import fork_server; fork_server._PRELOADED = [];"
        "fork_server.start_server(); from multiprocessing import forkserver; print(tempfile.gettempdir())"
    )
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")
