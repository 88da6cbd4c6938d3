import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpo.exceptions import InputError
from lightning_hpo.study.lock import lock_holder, lock_models, lock_study
from lightning_hpo.study_folder import StudyFolder
from tests.unchanged import unchanged

_HOLD = """
import sys
from pathlib import Path
from lightning_hpo.study.lock import lock_study
with lock_study(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# What the first version did.
_HOLD_BY_FLOCK = """
import fcntl, os, sys
with open(sys.argv[1] + "/.lock", "a+") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("hold", [_HOLD, _HOLD_BY_FLOCK])
def test_second_process_is_refused_until_the_first_exits(tmp_path: Path, hold: str) -> None:
    folder = tmp_path / "outputs" / "first"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert lock_holder(folder) == str(process.pid)
        with pytest.raises(InputError, match=rf"--study.name: process {process.pid} is tuning first; "):
            lock_study(folder).__enter__()
        process.kill()
    assert lock_holder(folder) is None
    with lock_study(folder) as used_before:
        assert used_before


def test_lock_is_released_on_exit_of_the_block(tmp_path: Path) -> None:
    with lock_study(tmp_path / "first") as used_before, pytest.raises(InputError, match="is tuning first"):
        lock_study(tmp_path / "first").__enter__()
    assert not used_before
    with lock_study(tmp_path / "first") as used_before:
        assert used_before


def test_models_are_locked_by_one_command_at_a_time(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with lock_models(folder, wait=True) as first, lock_models(folder, wait=False) as second:
        assert (first, second) == (True, False)
    with lock_models(folder, wait=False) as third:
        assert third
    with lock_models(StudyFolder(tmp_path / "none"), wait=True) as locked:
        assert not locked


def test_lock_holder_writes_nothing(tmp_path: Path) -> None:
    assert lock_holder(tmp_path / "first") is None
    assert list(tmp_path.iterdir()) == []


def test_lock_of_another_study_is_free(tmp_path: Path) -> None:
    with lock_study(tmp_path / "first"), lock_study(tmp_path / "second"):
        assert (tmp_path / "second").is_dir()


def test_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--study.outdir: cannot write in .*file/first: Not a directory"):
        lock_study(tmp_path / "file" / "first").__enter__()


def test_two_commands_that_look_at_once_see_no_holder(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    with lock_study(folder):
        pass
    with (folder / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as a second `status` does
        assert lock_holder(folder) is None


def test_holder_is_a_number(tmp_path: Path) -> None:
    with lock_study(tmp_path):
        (tmp_path / ".lock").write_text("1; rm -r ~")
        assert lock_holder(tmp_path) == "?"


def test_command_that_looks_for_the_holder_delays_a_study_and_does_not_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    with lock_study(folder):
        pass
    with (folder / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as `status` does
        monkeypatch.setattr("lightning_hpo.study.lock.time.sleep", lambda _: looking.close())
        with lock_study(folder):
            assert looking.closed


def _refuse(folder: Path, written: str) -> None:
    with lock_study(folder):
        (folder / written).write_text("of the refused command")
        raise InputError("refused")


def test_refusal_removes_the_folders_that_it_created(tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(InputError, match="refused"):
        _refuse(tmp_path / "outputs" / "first", "preflight.log")


def test_refusal_leaves_a_used_folder_as_it_was(tmp_path: Path) -> None:
    with lock_study(tmp_path / "first"):
        (tmp_path / "first/preflight.log").write_text("an earlier log")
    with unchanged(tmp_path), pytest.raises(InputError, match="refused"):
        _refuse(tmp_path / "first", "preflight.log")


def test_refusal_keeps_a_folder_in_which_something_was_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refused"):
        _refuse(tmp_path / "first", "log.txt")
    assert (tmp_path / "first/.lock").exists()
