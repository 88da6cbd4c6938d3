import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpo.claim import claimed, holder
from lightning_hpo.exceptions import InputError

_HOLD = """
import sys
from pathlib import Path
from lightning_hpo.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "first"
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert holder(folder) == str(process.pid)
        with pytest.raises(InputError, match=rf"--study.name: first is being tuned by process {process.pid}; "):
            claimed(folder).__enter__()
        process.kill()
    assert holder(folder) is None
    with claimed(folder):
        assert folder.is_dir()


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    with claimed(tmp_path / "first"), pytest.raises(InputError, match="is being tuned"):
        claimed(tmp_path / "first").__enter__()
    with claimed(tmp_path / "first"):
        pass


def test_another_study_is_free(tmp_path: Path) -> None:
    with claimed(tmp_path / "first"), claimed(tmp_path / "second"):
        assert (tmp_path / "second").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--study.outdir: cannot write in .*file/first: Not a directory"):
        claimed(tmp_path / "file" / "first").__enter__()
