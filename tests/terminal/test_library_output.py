import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_hpo.terminal.library_output import (
    LibraryOutput,
    collect_library_output,
    take_over_loggers,
    write_library_output,
)

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def output() -> Iterator[LibraryOutput]:
    with collect_library_output() as output:
        yield output


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that logs to the terminal on its own, as MLflow, Optuna and transformers do."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "chatty.py").write_text(
        "import logging, sys, warnings\n"
        "log = logging.getLogger('chatty.part')\n"
        "logging.getLogger('chatty').addHandler(logging.StreamHandler(sys.stderr))\n"
        "logging.getLogger('chatty').propagate = False\n"
        "def talk():\n"
        "    log.warning('Tip: install chatty-cloud')\n"
        "    warnings.warn('chatty 2 will change', FutureWarning, stacklevel=1)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "chatty", raising=False)
    return folder


@pytest.mark.filterwarnings("default")
def test_output_of_a_library_goes_to_the_log_and_not_to_the_terminal(
    output: LibraryOutput, library: Path, tmp_path: Path, capfd: Captured
) -> None:
    import chatty  # type: ignore[import-not-found]

    take_over_loggers()
    chatty.talk()
    write_library_output(tmp_path / "study/log.txt")
    chatty.talk()
    assert capfd.readouterr() == ("", "")
    lines = (tmp_path / "study/log.txt").read_text().splitlines()
    assert lines.count("WARNING chatty.part: Tip: install chatty-cloud") == 2
    assert [line for line in lines if "FutureWarning: chatty 2 will change" in line]
    assert output.warnings == len(lines)


@pytest.mark.filterwarnings("default")
def test_output_of_the_users_own_modules_is_shown(
    output: LibraryOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    (tmp_path / "my_agent.py").write_text(
        "import logging, warnings\n"
        "logging.getLogger(__name__).warning('a class has no examples')\n"
        "warnings.warn('old argument', stacklevel=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("my_agent")
    shown = capfd.readouterr().err.splitlines()
    assert shown[0] == "WARNING my_agent: a class has no examples"
    assert shown[1].endswith("my_agent.py:3: UserWarning: old argument")
    assert output.warnings == 0


def test_lines_of_this_package_are_shown_as_they_are(output: LibraryOutput, capfd: Captured) -> None:
    logging.getLogger("lightning_hpo.data.pair_data_module").info("data: posts 7")
    assert capfd.readouterr().err == "data: posts 7\n"


@pytest.mark.parametrize("own", [False, True])
def test_lines_of_this_package_are_also_in_the_log_of_a_study(
    output: LibraryOutput, tmp_path: Path, capfd: Captured, own: bool
) -> None:
    write_library_output(tmp_path / "study.log", with_own_lines=own)
    logging.getLogger("lightning_hpo.tracking.outbox").warning("MLflow does not respond")
    assert capfd.readouterr().err == "MLflow does not respond\n"
    assert (tmp_path / "study.log").exists() == own


def test_log_that_cannot_be_written_ends_nothing(output: LibraryOutput, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_library_output(tmp_path / "file/study.log")
    output.show_warning("chatty 2 will change", FutureWarning, logging.__file__, 1)
    assert output.warnings == 1


def test_everything_is_as_before_after_the_block(library: Path) -> None:
    show = warnings.showwarning
    handlers = list(logging.root.handlers)
    __import__("chatty")
    logger = logging.getLogger("chatty")
    own = list(logger.handlers)
    assert logging.StreamHandler in map(type, own)
    with collect_library_output():
        take_over_loggers()
        assert logging.StreamHandler not in map(type, logger.handlers)  # others are those of pytest
    assert (logger.handlers, logger.propagate) == (own, False)
    assert (warnings.showwarning, logging.root.handlers) == (show, handlers)


def test_real_libraries_are_silent_on_the_terminal(tmp_path: Path) -> None:
    code = """
import logging, sys
from pathlib import Path
from lightning_hpo.terminal.library_output import collect_library_output, take_over_loggers, write_library_output
with collect_library_output():
    import mlflow, optuna, transformers
    from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
    take_over_loggers()
    optuna.samplers.PartialFixedSampler({}, optuna.samplers.RandomSampler())
    optuna.create_study()
    logging.getLogger('mlflow').warning('run at http://x')
    transformers.utils.logging.get_logger('transformers.a').warning('w')
    rank_zero_info('Tip: install something'); rank_zero_warn('few workers')
    write_library_output(Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log.txt")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = (tmp_path / "log.txt").read_text()
    for piece in (
        "ExperimentalWarning",
        "A new study created",
        "run at http://x",
        "transformers.a: w",
        "Tip: install",
        "few workers",
    ):
        assert piece in log
