import gc
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.cli import main
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.import_study import import_studies
from tests.postgres import Postgres
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]

_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


class Old:
    """An Optuna database that another tool has written."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = Path(url.removeprefix("sqlite:///"))

    def study(self, name: str = "noaug", direction: StudyDirection = StudyDirection.MAXIMIZE) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=RDBStorage(self.url),
            direction=direction,
            sampler=optuna.samplers.RandomSampler(seed=1),
            load_if_exists=True,
        )


def _run(study: optuna.Study, state: TrialState) -> None:
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    if trial.suggest_categorical("augment", [True, False]):
        trial.suggest_float("p", 0.05, 0.3, step=0.05)
    trial.set_user_attr("note", {"host": "a"})
    trial.report(0.1 * trial.number, 0)
    trial.report(float("nan"), 1)
    if state == TrialState.COMPLETE:
        study.tell(trial, 0.5 + trial.number)
    elif state.is_finished():
        study.tell(trial, state=state)


def _fill(study: optuna.Study) -> None:
    study.set_user_attr("data", "redsm5")
    study._storage.set_study_system_attr(study._study_id, "by", "hand")
    for state in (*_STATES, TrialState.COMPLETE):
        _run(study, state)
    study.enqueue_trial({"lr": 0.01}, user_attrs={"why": "guess"})


@pytest.fixture
def old(ready_databases: Any, tmp_path: Path) -> Old:
    (tmp_path / "old").mkdir()
    old = Old(ready_databases(tmp_path / "old", "optuna.db"))
    _fill(old.study())
    return old


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/_optuna/dataaug.db"


def _trials(url: str, name: str = "noaug") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).get_trials()


def _whole(trial: FrozenTrial) -> dict[str, Any]:
    return {key: repr(value) for key, value in vars(trial).items() if key != "_trial_id"}


def _files(path: Path) -> dict[str, bytes]:
    """Return the content of every file except SQLite's shared memory, which every reader changes."""
    gc.collect()  # closes the connections that Optuna has left to the garbage collector, which changes the files
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}


def _import(source: str, target: str, name: str | None = None) -> list[str]:
    return import_studies(DatabaseUrl(source, "--from"), DatabaseUrl(target, "--storage"), name)


def test_every_trial_is_imported_as_it_is(old: Old, target: str) -> None:
    before = _files(old.path)
    assert _import(old.url, target) == [
        "noaug: 6 trials imported; 1 of them was running and is stored as failed",
    ]
    assert _files(old.path) == before
    study = optuna.load_study(study_name="noaug", storage=target)
    assert study.direction == StudyDirection.MAXIMIZE
    assert study.user_attrs == {"data": "redsm5"}
    assert study._storage.get_study_system_attrs(study._study_id) == {"by": "hand"}
    source, imported = _trials(old.url), _trials(target)
    assert [t.number for t in imported] == list(range(6))
    assert {len(t.params) for t in source if t.state.is_finished()} == {2, 3}
    for number in (0, 1, 2, 4, 5):
        assert _whole(imported[number]) == _whole(source[number])
    running, waiting = imported[3], imported[5]
    assert (source[3].state, running.state) == (TrialState.RUNNING, TrialState.FAIL)
    assert (running.params, running.distributions) == (source[3].params, source[3].distributions)
    assert running.user_attrs == {"note": {"host": "a"}, "ended_by": "it was running when its study was imported"}
    assert waiting.state == TrialState.WAITING


def test_no_file_is_left_next_to_a_source_that_no_process_has_open(old: Old, target: str, tmp_path: Path) -> None:
    path = tmp_path / "rest" / "noaug.db"
    path.parent.mkdir()
    with sqlite3.connect(old.path) as written, sqlite3.connect(path) as made:
        written.backup(made)
    written.close()
    made.close()
    before = path.read_bytes()
    assert before[18:20] == b"\2\2"  # write-ahead logging
    _import(f"sqlite:///{path}", target)
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("noaug.db", before)]


def test_study_that_exists_is_refused_and_nothing_is_written(
    old: Old, target: str, capsys: Captured, tmp_path: Path
) -> None:
    _import(old.url, target)
    old.study("another")
    before = [_whole(t) for t in _trials(target)]
    for _ in range(2):
        with unchanged(tmp_path):
            assert main(["import-study", "--from", old.url, "--storage", target]) == 2
        assert capsys.readouterr().err == (
            f"error: --study noaug: {target} has a study of that name already, and an import does not add to it; name "
            "another --storage, or import the other studies one by one with --study\n"
        )
    assert optuna.get_all_study_names(target) == ["noaug"]
    assert [_whole(t) for t in _trials(target)] == before


def test_study_that_another_process_creates_meanwhile_is_refused_and_kept(
    old: Old, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _import(old.url, target)
    monkeypatch.setattr("lightning_hpo.storage.studies.StudyDatabase.find", lambda self, name: None)
    with pytest.raises(InputError, match="has a study of that name already"):
        _import(old.url, target)
    assert len(_trials(target)) == 6


def test_interrupted_import_can_be_repeated(old: Old, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = RDBStorage._create_new_trial
    made: list[Any] = []

    def create_three(*arguments: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(create(*arguments))
        return made[-1]

    monkeypatch.setattr(RDBStorage, "_create_new_trial", create_three)
    with pytest.raises(KeyboardInterrupt):
        _import(old.url, target)
    monkeypatch.undo()
    assert optuna.get_all_study_names(target) == []
    _import(old.url, target)
    assert len(_trials(target)) == 6


def test_imported_study_is_resumed_with_the_trial_that_waits(old: Old, target: str) -> None:
    _import(old.url, target)
    study = optuna.load_study(study_name="noaug", storage=target)
    trial = study.ask()
    assert (trial.number, trial.suggest_float("lr", 1e-5, 1e-1, log=True)) == (5, 0.01)
    study.tell(trial, 0.9)
    assert study.ask().number == 6


def test_all_studies_are_imported_or_the_named_one(old: Old, target: str, tmp_path: Path) -> None:
    _run(old.study("second", StudyDirection.MINIMIZE), TrialState.COMPLETE)
    assert _import(old.url, target, "second") == ["second: 1 trials imported"]
    assert optuna.get_all_study_names(target) == ["second"]
    assert optuna.load_study(study_name="second", storage=target).direction == StudyDirection.MINIMIZE
    both = f"sqlite:///{tmp_path}/both.db"
    assert [line.split(":")[0] for line in _import(old.url, both)] == ["noaug", "second"]
    assert optuna.get_all_study_names(both) == ["noaug", "second"]


def test_source_that_is_being_written_is_read_in_its_last_consistent_state(old: Old, target: str) -> None:
    with sqlite3.connect(old.path) as writing:
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("UPDATE trials SET state = 'FAIL' WHERE number = 0")
        _import(old.url, target)
    writing.close()
    assert _trials(target)[0].state == TrialState.COMPLETE


def test_server_is_only_read(tmp_path: Path, target: str) -> None:
    server = Postgres(tmp_path / "postgres")
    try:
        url = server.database("old")
        _fill(Old(url).study())
        before = [_whole(t) for t in _trials(url)]
        assert _import(url, target) == ["noaug: 6 trials imported; 1 of them was running and is stored as failed"]
        assert [_whole(t) for t in _trials(url)] == before
        assert [_whole(t) for t in _trials(target)][:3] == before[:3]
    finally:
        server.cleanup()


def _nothing(path: Path) -> None:
    del path


def _text(path: Path) -> None:
    path.write_text("this is no database" * 99)


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE posts (x)")
    connection.close()


def _no_studies(path: Path) -> None:
    RDBStorage(f"sqlite:///{path}")


def _old_version(path: Path) -> None:
    Old(f"sqlite:///{path}").study()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    connection.close()


def _ancient(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (study_id INTEGER)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_nothing, "--from: there is no database {}; tune a study first, or name another"),
        (_text, "--from: {} cannot be read as an SQLite database: file is not a database"),
        (_other_tables, "--from: sqlite:///{} contains no studies"),
        (_no_studies, "--from: sqlite:///{} contains no studies; name another database"),
        (
            _old_version,
            "--from: sqlite:///{} was written by an older Optuna; copy it, run `optuna storage upgrade --storage URL`",
        ),
        (_ancient, "--from: sqlite:///{} was written by an older Optuna"),
    ],
)
def test_unusable_source_is_one_line_and_nothing_is_written(
    make: Any, expected: str, tmp_path: Path, target: str, capsys: Captured
) -> None:
    path = tmp_path / "old.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(path)
    before = _files(path)
    with unchanged(tmp_path):
        assert main(["import-study", "--from", f"sqlite:///{path}", "--storage", target]) == 2
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert line.startswith("error: " + expected.format(path))
    assert shown.out == ""
    assert _files(path) == before


def test_copy_does_not_have_the_command_that_tunes_the_original(old: Old, target: str, tmp_path: Path) -> None:
    study = old.study()
    for key, value in {"agent": "criteria", "outdir": str(tmp_path), "n_trials": 99, "command": "rm -r ~"}.items():
        study.set_user_attr(key, value)
    import_studies(DatabaseUrl(old.url, "--from"), DatabaseUrl(target, "--storage"))
    attributes = optuna.load_study(study_name="noaug", storage=target).user_attrs
    assert (attributes["agent"], attributes["command"]) == ("criteria", "")


def test_command_prints_one_line_for_each_study(old: Old, target: str, capsys: Captured) -> None:
    assert main(["import-study", "--from", old.url, "--storage", target, "--study", "noaug"]) == 0
    assert capsys.readouterr().out == "noaug: 6 trials imported; 1 of them was running and is stored as failed\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--study", "none"], "error: --study none: no such study in sqlite:///{}; there are: noaug"),
        (["--storage", "sqlite:///{}"], "error: --from: sqlite:///{} is the storage itself"),
        (["--storage", "{}"], "error: --storage: '{}' is not a database URL"),
    ],
)
def test_bad_arguments_are_one_line(
    old: Old, target: str, capsys: Captured, arguments: list[str], expected: str, tmp_path: Path
) -> None:
    flags = ["--storage", target, *(word.format(old.path) for word in arguments)]
    with unchanged(tmp_path):
        assert main(["import-study", "--from", old.url, *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(expected.format(old.path))
    assert not Path(target.removeprefix("sqlite:///")).exists()


def test_password_is_not_shown(target: str, capsys: Captured) -> None:
    assert main(["import-study", "--from", "postgresql://me:secret@localhost:1/db", "--storage", target]) == 2
    shown = capsys.readouterr().err
    assert "--from: cannot open postgresql://me:***@localhost:1/db" in shown
    assert "secret" not in shown
