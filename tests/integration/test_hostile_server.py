"""A tracking server that lies, and an artifact store that anybody can write: no command is harmed by them."""

import contextlib
import gzip
import itertools
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from lightning_hpo.cli import main
from lightning_hpo.tracking import guarded_client
from scripts.lying_server import Answer, LyingServer, Request
from scripts.tracking_server import tracking_server
from tests.planted_program import plant_code
from tests.study_sandbox import CONFIG, StudySandbox

Lie = Callable[[Request, Answer], Answer]

_LIES = int(os.environ.get("LIES", "16"))
"""Changed fields for each command of the sweep; as many as there are for a longer run are set in the environment."""
_LIMIT_S = 60
_ESCAPE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONFIG = {"model": {"class_path": "tests.foreign.TestedModule"}, "trainer": CONFIG["trainer"] | {"max_epochs": 1}}


@dataclass
class Stage:
    """A real server behind a liar, and a finished study, which is never changed."""

    folder: Path
    liar: LyingServer
    store: Path
    model: Path
    """Files of the registered model in the store."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder, server = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("server")
    with (
        tracking_server(server) as port,
        LyingServer(port).running() as liar,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("OPTUNA_STORAGE", raising=False)
        (folder / "_optuna").mkdir()
        sandbox = StudySandbox(folder)
        sandbox.tracking_uri = liar.uri
        assert sandbox.tune("first", "--study.n_trials", "2", config=_CONFIG) == 0
        store = server / "artifacts"
        [model] = [each.parent for each in store.rglob("MLmodel") if "models" in each.parts]
        yield Stage(folder, liar, store, model)


class Victim:
    """A copy of the study, with a home folder and other folders that no command may change."""

    def __init__(self, folder: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.liar, self.store, self._capsys = folder, stage.liar, stage.store, capsys
        self.own, self.elsewhere, self.temporary = folder / "own", folder / "elsewhere", folder / "temporary"
        shutil.copytree(stage.folder, self.own)
        self.temporary.mkdir()
        (self.elsewhere / "artifacts").mkdir(parents=True)
        for name in ("config.yaml", "config.json", "MLmodel", "artifacts/config.yaml", ".bashrc"):
            (self.elsewhere / name).write_text("not of the study\n")
        self.before = self._tree()
        self.sandbox = StudySandbox(self.own)
        self.sandbox.tracking_uri = self.liar.uri

    def _tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
            for path in self.folder.rglob("*")
            if self.own not in path.parents
        }

    def commands(self) -> dict[str, list[str]]:
        where = ["--storage", self.sandbox.storage, "--tracking_uri", self.liar.uri]
        tune = self.sandbox.arguments("first", "--study.n_trials", "2", "--study.register", "false", config=_CONFIG)
        more = self.sandbox.arguments("first", "--study.n_trials", "3", "--study.register", "false", config=_CONFIG)
        return {
            "status": ["status", "--study", "first", "--storage", self.sandbox.storage],
            "reconcile": ["reconcile", "--study", "first", *where],
            "reproduce": ["reproduce", "first", *where],
            "reproduce --run": ["reproduce", "first", "--run", *where],
            "register": ["register", "--study", "first", *where],
            "report": ["report", "first", *where],
            "tune": tune,
            "tune one more": more,
            "refit": ["refit", "first", "--trials", "1", "--seeds", "1", *where],
        }

    def run(self, name: str, lie: Lie) -> tuple[int, str]:
        """Run a command, check what holds for each, and return its exit code and output."""
        self._capsys.readouterr()
        with self.liar.lying(lie), _limit(name):
            code = main(self.commands()[name])
        shown, errors = self._capsys.readouterr()
        assert code in (0, 1, 2), errors
        assert "Traceback" not in shown + errors
        assert not _ESCAPE.search(shown + errors)
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == (code != 0), errors
        assert all(len(line) < 1000 for line in (shown + errors).splitlines())
        assert self._tree() == self.before
        return code, shown + errors


@contextlib.contextmanager
def _limit(what: str) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} takes more than {_LIMIT_S} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def victim(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Victim]:
    made = Victim(tmp_path, stage, capsys)
    monkeypatch.chdir(made.own)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("HOME", str(made.elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    monkeypatch.setattr("lightning_hpo.tracking.outbox.PAUSE_S", 0.0)
    _artifact_repos_cache.clear()  # MLflow would not ask the server again
    yield made
    for path in stage.store.rglob("*"):  # what a case has planted
        if path.is_symlink() or path.is_fifo():
            path.unlink()


# --- Each field of each answer, by type. ---

_HUGE = "x" * 1_000_000
_VALUES: list[Any] = [
    *(None, [], {}, [[]], [{}], "", "text", -1, 0, 2**70, 1.5, True, float("inf"), float("nan")),
    *("\x1b[2J\x07\x9b31m", "[bold]markup[/bold]", "\ud800", "../../../elsewhere", "a/b", _HUGE),
    *("4102444800000", "'; DROP", "%2e%2e/", "\u202edlrow", "line\none more", "line\u2028one more"),
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a JSON document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:2]):
            yield from _places(inner, (*path, key))


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(document, dict) and path[0] in document:
        return {**document, path[0]: _replaced(document[path[0]], path[1:], value)}
    if isinstance(document, list) and isinstance(path[0], int) and path[0] < len(document):
        return [_replaced(each, path[1:], value) if at == path[0] else each for at, each in enumerate(document)]
    return document


def _kind(request: Request) -> tuple[str, str]:
    return request.method, re.sub(r"(m-)?[0-9a-f]{32}", "ID", request.path.split("?")[0])


def _changed(kind: tuple[str, str], path: tuple[Any, ...], value: Any) -> Lie:
    """Return a lie in one field of an endpoint."""

    def lie(request: Request, answer: Answer) -> Answer:
        if _kind(request) != kind or not answer.body.startswith(b"{"):
            return answer
        return replace(answer, body=json.dumps(_replaced(json.loads(answer.body), path, value)).encode())

    return lie


@pytest.mark.parametrize(
    "name", ["status", "reconcile", "reproduce", "reproduce --run", "register", "report", "tune", "refit"]
)
def test_no_field_of_an_answer_harms_a_command(victim: Victim, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_hpo.report.write._write", _one_page)  # the same in each case, and it takes seconds
    victim.liar.seen.clear()
    code, _ = victim.run(name, lambda request, answer: answer)
    assert code == 0
    cases = {
        (_kind(request), path): None
        for request, answer in victim.liar.seen
        if answer.body.startswith(b"{")
        for path in _places(json.loads(answer.body))
    }
    draw = random.Random(f"{name} {os.environ.get('SEED', 17)}")
    chosen = [(kind, path, value) for kind, path in cases for value in _VALUES]
    lies = max(1, _LIES // {"register": 8, "tune": 8, "report": 2, "refit": 16, "reproduce --run": 8}.get(name, 1))
    for kind, path, value in draw.sample(chosen, min(lies, len(chosen))):
        try:
            victim.run(name, _changed(kind, path, value))
        except BaseException as error:
            error.add_note(f"{name}: {kind} {path} = {str(value)[:60]!r}")
            raise


def _one_page(folder: Path, record: Any) -> list[Path]:
    from lightning_hpo.report import tables

    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text(str([tables.summary(record), tables.environment(record)]), encoding="utf-8")
    return [folder / "report.html"]


# --- Answers that are no answers of MLflow. ---


class Trap:
    """Another host, which no command may call."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._listener.setblocking(False)

    @property
    def was_called(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._listener.accept()[0].close()
            return True
        return False

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


def _gzip(size: int) -> Answer:
    return Answer(200, gzip.compress(b"[" * size), {"Content-Encoding": "gzip", "Content-Type": "application/json"})


_TRANSPORTS: dict[str, Callable[[Answer], Answer]] = {
    **{f"status {status}": partial(replace, status=status) for status in (201, 204, 304, 401, 404, 418, 500, 503, 599)},
    "half of the body": lambda answer: replace(answer, body=answer.body[: len(answer.body) // 2]),
    "half of the length": lambda answer: replace(answer, length=len(answer.body) // 2),
    "twice the length": lambda answer: replace(answer, length=2 * len(answer.body)),
    "a page": lambda answer: Answer(200, b"<!doctype html><title>sign in</title>"),
    "a page of an error": lambda answer: Answer(403, b"<!doctype html><title>\x1b[2J\x00</title>\r\n\r\n" * 100),
    "nothing": lambda answer: Answer(200),
    "no UTF-8": lambda answer: Answer(200, b'{"experiment": "\xff\xfe\x80"}'),
    "a deep list": lambda answer: Answer(200, b'{"experiment": ' + b"[" * 100_000),
    "an endless body": lambda answer: Answer(200, b"x" * 100_000, endless=True),
    "endless headers": lambda answer: replace(answer, headers={f"X-{n}": "x" * 100 for n in range(200)}),
    "much in little": lambda answer: _gzip(50_000_000),
    "an error code that is a list": lambda answer: Answer(400, b'{"error_code": ["X"], "message": {"a": 1}}'),
    "an error without end": lambda answer: Answer(
        400, json.dumps({"error_code": "X", "message": "\x1b[2J\u2028" + "x" * 100_000}).encode()
    ),
}


@pytest.mark.parametrize("what", _TRANSPORTS)
def test_no_answer_that_is_not_of_mlflow_harms_a_command(
    victim: Victim, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_client, "_MOST_BYTES", 1_000_000)
    for name in ("reconcile", "reproduce"):
        code, shown = victim.run(name, lambda request, answer: _TRANSPORTS[what](answer))
        assert code == 0 or "MLflow" in shown or "--study.tracking_uri" in shown


@pytest.mark.parametrize(
    ("name", "status"), [("reconcile", 301), ("reproduce", 302), ("report", 307), ("register", 308)]
)
def test_redirect_to_another_host_is_not_followed(
    victim: Victim, trap: Trap, name: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_hpo.report.write._write", _one_page)
    location = f"http://127.0.0.1:{trap.port}/api/2.0/mlflow/experiments/get"
    _, shown = victim.run(name, lambda request, answer: Answer(status, b"", {"Location": location}))
    assert "redirects" in shown or "not available" in shown
    assert not trap.was_called


def test_pages_without_an_end_are_an_error(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_hpo.tracking.tracker._MOST_PAGES", 20)
    pages, first = itertools.count(), list[Answer]()

    def lie(request: Request, answer: Answer) -> Answer:
        if "search" not in request.path:
            return answer
        first.append(answer)
        document = json.loads(first[0].body) | {"next_page_token": f"page {next(pages)}"}
        return replace(first[0], body=json.dumps(document).encode())

    code, shown = victim.run("reconcile", lie)
    assert code == 1
    assert "more than 20 pages" in shown


# --- Runs that are not what they say. ---


def _claims(*changes: dict[str, Any], twice: bool = False) -> Lie:
    """Return a lie: the runs of a search, and one more for each change of their tags, with another id or the same."""

    def lie(request: Request, answer: Answer) -> Answer:
        if not request.path.endswith("/runs/search"):
            return answer
        document = json.loads(answer.body)
        [*runs] = document.get("runs", [])
        for number, change in enumerate(changes):
            more = json.loads(json.dumps(runs[:1]))
            for run in more:
                tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]} | change
                run["data"]["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
                if not twice:
                    run["info"] |= {"run_id": f"{number:032}", "run_uuid": f"{number:032}"}
            runs += more
        return replace(answer, body=json.dumps(document | {"runs": runs}).encode())

    return lie


_TRIALS = ["0", "7", "-1", "1.0", "\u00b2", "\u0663", "9" * 5000, "", " 0", "0\n", "nan", "../0"]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", ["reconcile", "report"])
def test_runs_that_claim_to_be_of_the_study(
    victim: Victim, name: str, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_hpo.report.write._write", _one_page)
    kept = [path.read_bytes() for path in sorted(victim.own.rglob("best.ckpt"))]
    lies = _claims(*({"optuna_trial": text} for text in _TRIALS), {"study_id": "another"}, twice=twice)
    code, shown = victim.run(name, lies)
    assert code in (0, 1)
    assert kept == [path.read_bytes() for path in sorted(victim.own.rglob("best.ckpt"))]
    # Only runs that name an existing number of this study are moved to the trash, and none of a trial.
    assert not twice or "moved to MLflow's trash" not in shown


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "", "x", "-1e308", None])
def test_version_whose_tags_others_have_changed_is_not_replaced(victim: Victim, value: str | None) -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        if "registered-models/alias" not in request.path or request.method != "GET":
            return answer
        document = json.loads(answer.body)
        version = document["model_version"] | {"version": "99"}
        version["tags"] = [tag for tag in version["tags"] if tag["key"] != "value"]
        version["tags"] += [] if value is None else [{"key": "value", "value": value}]
        return replace(answer, body=json.dumps({"model_version": version}).encode())

    code, shown = victim.run("register", lie)
    assert code == 0
    assert ("production is not moved" in shown) is (value != "-1e308")


# --- Places of artifacts. ---

_PLACES = [
    *("{elsewhere}", "file://{elsewhere}", "FILE://localhost{elsewhere}", "{own}/../elsewhere", "file:{elsewhere}"),
    *("http://127.0.0.1:{port}/x", "mlflow-artifacts://127.0.0.1:{port}/x", "ftp://127.0.0.1:{port}/x"),
    *("sftp://127.0.0.1:{port}/x", "hdfs://127.0.0.1:{port}/x", "runs:/{run}/x", "models:/m-{run}", "no-scheme:x"),
    *("mlflow-artifacts:/../../{elsewhere}", "mlflow-artifacts://127.0.0.1:x/y", "http://[", "\x00", ""),
]
_LOCATIONS = ("artifact_uri", "artifact_location", "source", "storage_location")


def _with_places(document: Any, place: str) -> Any:
    if isinstance(document, dict):
        return {key: place if key in _LOCATIONS else _with_places(each, place) for key, each in document.items()}
    return [_with_places(each, place) for each in document] if isinstance(document, list) else document


def _elsewhere(place: str, *paths: str) -> Lie:
    def lie(request: Request, answer: Answer) -> Answer:
        if not answer.body.startswith(b"{") or not any(path in request.path for path in paths):
            return answer
        return replace(answer, body=json.dumps(_with_places(json.loads(answer.body), place)).encode())

    return lie


@pytest.mark.parametrize("place", _PLACES)
def test_server_cannot_choose_a_place_of_this_machine_or_another_host(
    victim: Victim, trap: Trap, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_hpo.report.write._write", _one_page)
    named = place.format(elsewhere=victim.elsewhere, own=victim.own, port=trap.port, run="0" * 32)
    for name in ("report", "register") if place in _PLACES[:6:5] else ("report",):
        victim.run(name, _elsewhere(named, "/mlflow/"))
    assert not trap.was_called


@pytest.mark.parametrize("paths", [("/experiments/",), ("/runs/", "/logged-models")])
def test_trial_writes_no_artifact_to_a_place_that_a_server_names(victim: Victim, paths: tuple[str, ...]) -> None:
    code, shown = victim.run("tune one more", _elsewhere(str(victim.elsewhere), *paths))
    assert code == (2 if "/experiments/" in paths else 0)
    assert "MLFLOW_DEFAULT_ARTIFACT_ROOT" in shown


_LISTINGS: list[list[dict[str, Any]]] = [
    [{"path": "../../../elsewhere/.bashrc", "is_dir": False, "file_size": 1}],
    [{"path": "/elsewhere/.bashrc", "is_dir": False, "file_size": 1}],
    [{"path": "data/../../../elsewhere/new", "is_dir": True}],
    [{"path": "%2e%2e/%2e%2e/new", "is_dir": False, "file_size": 1}],
    [{"path": "MLmodel", "is_dir": False, "file_size": 2**80}] * 3,
    [{"path": None}],
]


@pytest.mark.parametrize("listing", _LISTINGS)
def test_listing_of_artifacts_cannot_leave_the_folder(victim: Victim, listing: list[dict[str, Any]]) -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        is_listing = "mlflow-artifacts/artifacts?" in request.path
        return replace(answer, body=json.dumps({"files": listing}).encode()) if is_listing else answer

    code, shown = victim.run("register", lie)
    assert code == 1
    assert "no alias is moved" in shown


# --- Model files that somebody has changed in the store. ---


class Planted:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self._marker,)


def _plant_pickle(model: Path, marker: Path) -> None:
    (model / "data/model.pth").write_bytes(pickle.dumps(Planted(marker)))
    (model / "data/pickle_module_info.txt").write_text("pickle")


def _plant_loader(model: Path, marker: Path) -> None:
    (model / "code").mkdir()
    (model / "code/planted.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(f"flavors: {{python_function: {{loader_module: planted, code: code}}}}\n{text}")


def _plant_tag(model: Path, marker: Path) -> None:
    with (model / "MLmodel").open("a") as file:
        file.write(f"planted: !!python/object/apply:os.system ['touch {marker}']\n")


def _plant_bomb(model: Path, marker: Path) -> None:
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (model / "MLmodel").write_text("\n".join(["a0: &a0 [x]", *lines, "metadata: {sha256: *a29}"]))


_TAMPERED: dict[str, Callable[[Path, Path], object]] = {
    "a pickle": _plant_pickle,
    "a loader": _plant_loader,
    "a tag of YAML": _plant_tag,
    "aliases of YAML": _plant_bomb,
    "a program": lambda model, marker: _plant_program(model / "data/model.pt2", marker),
    "requirements": lambda model, marker: (model / "requirements.txt").write_text(f"file://{marker}\n"),
    "a link": lambda model, marker: (model / "data/link").symlink_to("/etc/hostname"),
    "a link to a folder": lambda model, marker: (model / "link").symlink_to("/etc/skel"),
    "no MLmodel": lambda model, marker: (model / "MLmodel").unlink(),
    "a large file": lambda model, marker: os.truncate(model / "MLmodel", 100_000_000),
}


def _plant_program(program: Path, marker: Path) -> None:
    with contextlib.suppress(AssertionError):  # a program without a size that varies has no expression
        plant_code(program, marker)
    with program.open("ab") as file:
        file.write(b"\0")


@pytest.fixture
def model(stage: Stage) -> Iterator[Path]:
    """Files of the registered model in the store, which are as before at the end."""
    path = stage.model
    kept = path.with_name("kept")
    shutil.copytree(path, kept)
    yield path
    shutil.rmtree(path)
    kept.rename(path)


@pytest.mark.parametrize("what", _TAMPERED)
def test_changed_model_is_not_loaded(victim: Victim, what: str, model: Path) -> None:
    marker = victim.elsewhere / "marker"
    _TAMPERED[what](model, marker)
    code, shown = victim.run("register", lambda request, answer: answer)
    assert code == 1, shown
    assert "no alias is moved" in shown
