import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpo.exceptions import InputError
from lightning_hpo.study.lock import lock_holder, lock_study

_HOLD = """
import sys
from pathlib import Path
from lightning_hpo.study.lock import lock_study
with lock_study(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "first"
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert lock_holder(folder) == str(process.pid)
        with pytest.raises(InputError, match=rf"--study.name: first is being tuned by process {process.pid}; "):
            lock_study(folder).__enter__()
        process.kill()
    assert lock_holder(folder) is None
    with lock_study(folder):
        assert folder.is_dir()


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    with lock_study(tmp_path / "first"), pytest.raises(InputError, match="is being tuned"):
        lock_study(tmp_path / "first").__enter__()
    with lock_study(tmp_path / "first"):
        pass


def test_another_study_is_free(tmp_path: Path) -> None:
    with lock_study(tmp_path / "first"), lock_study(tmp_path / "second"):
        assert (tmp_path / "second").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--study.outdir: cannot write in .*file/first: Not a directory"):
        lock_study(tmp_path / "file" / "first").__enter__()
