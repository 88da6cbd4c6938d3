import sqlite3
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_hpo.cli import main
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.import_study import Import, import_studies

Captured = pytest.CaptureFixture[str]

_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


class Old:
    """An Optuna database as another tool has left it."""

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
    study.enqueue_trial({"lr": 0.01}, user_attrs={"why": "a guess"})


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
    """Without SQLite's shared memory, in which a reader leaves its mark."""
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}


def test_every_trial_comes_over_as_it_is(old: Old, target: str) -> None:
    before = _files(old.path)
    assert import_studies(old.url, target) == [Import("noaug", new=6, known=0, stale=0)]
    assert _files(old.path) == before
    study = optuna.load_study(study_name="noaug", storage=target)
    assert study.direction == StudyDirection.MAXIMIZE
    assert study.user_attrs == {"data": "redsm5"}
    assert study._storage.get_study_system_attrs(study._study_id) == {"by": "hand"}
    source, brought = _trials(old.url), _trials(target)
    assert [t.number for t in brought] == list(range(6))
    assert {len(t.params) for t in source if t.state.is_finished()} == {2, 3}
    for number in (0, 1, 2, 4):
        assert _whole(brought[number]) == _whole(source[number])
    running, waiting = brought[3], brought[5]
    assert (source[3].state, running.state) == (TrialState.RUNNING, TrialState.FAIL)
    assert running.params == source[3].params
    assert running.user_attrs["ended_by"] == "it was running when its study was brought over"
    assert waiting.state == TrialState.WAITING
    assert waiting.system_attrs == source[5].system_attrs
    assert waiting.user_attrs == {"why": "a guess", "imported_as": "WAITING"}


def test_nothing_is_left_beside_a_source_at_rest(old: Old, target: str, tmp_path: Path) -> None:
    path = tmp_path / "rest" / "noaug.db"
    path.parent.mkdir()
    with sqlite3.connect(old.path) as written, sqlite3.connect(path) as made:
        written.backup(made)
    written.close()
    made.close()
    before = path.read_bytes()
    assert before[18:20] == b"\2\2"  # write-ahead logging
    assert import_studies(f"sqlite:///{path}", target) == [Import("noaug", 6, 0, 0)]
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("noaug.db", before)]


def test_again_and_after_growth_nothing_is_doubled(old: Old, target: str) -> None:
    import_studies(old.url, target)
    assert import_studies(old.url, target) == [Import("noaug", new=0, known=6, stale=0)]
    study = old.study()
    study.tell(3, 0.25)
    _run(study, TrialState.COMPLETE)  # takes up the trial that waits
    _run(study, TrialState.PRUNED)
    _run(study, TrialState.COMPLETE)
    before = _trials(target)
    [again] = import_studies(old.url, target)
    assert again == Import("noaug", new=2, known=6, stale=2)
    assert str(again) == (
        "noaug: 2 trials brought over, 6 already there (2 of them had not ended then, and stay as they came)"
    )
    after = _trials(target)
    assert [_whole(t) for t in after[:6]] == [_whole(t) for t in before]
    assert [_whole(t) for t in after[6:]] == [_whole(t) for t in _trials(old.url)[6:]]


def test_an_import_that_was_broken_off_is_finished(old: Old, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = RDBStorage.create_new_trial
    made: list[int] = []

    def create_three(self: RDBStorage, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(create(self, study_id, template_trial))
        return made[-1]

    monkeypatch.setattr(RDBStorage, "create_new_trial", create_three)
    with pytest.raises(KeyboardInterrupt):
        import_studies(old.url, target)
    monkeypatch.undo()
    assert import_studies(old.url, target) == [Import("noaug", new=3, known=3, stale=0)]
    assert optuna.load_study(study_name="noaug", storage=target).user_attrs == {"data": "redsm5"}


def test_a_study_goes_on_where_it_was_brought_to(old: Old, target: str) -> None:
    import_studies(old.url, target)
    study = optuna.load_study(study_name="noaug", storage=target)
    trial = study.ask()
    assert (trial.number, trial.suggest_float("lr", 1e-5, 1e-1, log=True)) == (5, 0.01)
    study.tell(trial, 0.9)
    _run(study, TrialState.COMPLETE)
    assert import_studies(old.url, target) == [Import("noaug", new=0, known=6, stale=0)]
    _run(old.study(), TrialState.COMPLETE)
    _run(old.study(), TrialState.COMPLETE)
    before = [_whole(t) for t in _trials(target)]
    with pytest.raises(InputError, match=r"and another origin: its trial 6 is not the same; name another --storage"):
        import_studies(old.url, target)
    assert [_whole(t) for t in _trials(target)] == before


def test_all_studies_come_or_the_one_that_is_named(old: Old, target: str, tmp_path: Path) -> None:
    _run(old.study("second", StudyDirection.MINIMIZE), TrialState.COMPLETE)
    assert [each.study for each in import_studies(old.url, target, "second")] == ["second"]
    assert optuna.get_all_study_names(target) == ["second"]
    assert import_studies(old.url, target) == [Import("noaug", 6, 0, 0), Import("second", 0, 1, 0)]
    assert optuna.load_study(study_name="second", storage=target).direction == StudyDirection.MINIMIZE


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_a_study_of_another_origin_is_refused_and_nothing_is_written(
    old: Old, target: str, direction: StudyDirection
) -> None:
    old.study("another")
    Path(target.removeprefix("sqlite:///")).parent.mkdir()
    study = optuna.create_study(study_name="noaug", storage=target, direction=direction)
    study.add_trial(create_trial(value=1.0, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}))
    with pytest.raises(InputError) as caught:
        import_studies(old.url, target)
    [line] = caught.value.problems
    said = (
        "another origin: its trial 0 is"
        if direction == StudyDirection.MAXIMIZE
        else "would minimize, and this one would maximiz"
    )
    assert said in line
    assert optuna.get_all_study_names(target) == ["noaug"]
    assert len(_trials(target)) == 1


def test_the_same_params_at_another_time_are_another_trial(old: Old, target: str) -> None:
    import_studies(old.url, target)
    with sqlite3.connect(old.path) as connection:
        connection.execute("UPDATE trials SET datetime_start = '2001-01-01 00:00:00.000000' WHERE number = 0")
    connection.close()
    assert _trials(old.url)[0].params == _trials(target)[0].params
    assert _trials(target)[0].datetime_start - _trials(old.url)[0].datetime_start > timedelta(days=1)  # type: ignore[operator]
    with pytest.raises(InputError, match="its trial 0 is not the same"):
        import_studies(old.url, target)


def test_a_source_that_is_being_written_is_read_as_it_stands(old: Old, target: str) -> None:
    with sqlite3.connect(old.path) as writing:
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("UPDATE trials SET state = 'FAIL' WHERE number = 0")
        assert import_studies(old.url, target) == [Import("noaug", 6, 0, 0)]
    writing.close()
    assert _trials(target)[0].state == TrialState.COMPLETE


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
    ("make", "said"),
    [
        (_nothing, "--from: there is no database {}; name the file of an Optuna database"),
        (_text, "--from: {} cannot be read as an SQLite database: file is not a database"),
        (_other_tables, "--from: sqlite:///{} holds no studies"),
        (_no_studies, "--from: sqlite:///{} holds no studies; name another database"),
        (
            _old_version,
            "--from: sqlite:///{} is of an older Optuna; copy it, run `optuna storage upgrade --storage URL`",
        ),
        (_ancient, "--from: sqlite:///{} is of an older Optuna"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line_and_nothing_is_made(
    make: Any, said: str, tmp_path: Path, target: str, capsys: Captured
) -> None:
    path = tmp_path / "old.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(path)
    before = _files(path)
    assert main(["import-study", "--from", f"sqlite:///{path}", "--storage", target]) == 2
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert line.startswith("error: " + said.format(path))
    assert shown.out == ""
    assert _files(path) == before


def test_the_command_says_a_line_a_study(old: Old, target: str, capsys: Captured) -> None:
    assert main(["import-study", "--from", old.url, "--storage", target]) == 0
    assert capsys.readouterr().out == "noaug: 6 trials brought over, 0 already there\n"
    assert main(["import-study", "--from", old.url, "--storage", target, "--study", "noaug"]) == 0
    assert capsys.readouterr().out == "noaug: 0 trials brought over, 6 already there\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study", "none"], "error: --study none: no such study in sqlite:///{}; there are: noaug"),
        (["--storage", "sqlite:///{}"], "error: --from: sqlite:///{} is the storage itself"),
        (["--storage", "{}"], "error: --storage: '{}' is no database URL"),
    ],
)
def test_bad_arguments_are_one_line(old: Old, target: str, capsys: Captured, arguments: list[str], said: str) -> None:
    flags = ["--storage", target, *(word.format(old.path) for word in arguments)]
    assert main(["import-study", "--from", old.url, *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said.format(old.path))
    assert not Path(target.removeprefix("sqlite:///")).exists()


def test_a_password_is_not_shown(target: str, capsys: Captured) -> None:
    assert main(["import-study", "--from", "postgresql://me:secret@localhost:1/db", "--storage", target]) == 2
    shown = capsys.readouterr().err
    assert "--from: cannot open postgresql://me:***@localhost:1/db" in shown
    assert "secret" not in shown
