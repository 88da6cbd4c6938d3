"""All commands. Each command imports what it needs when it is called, so that `--help` answers at once."""

import argparse
import atexit
import gc
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightning_hpo import __version__
from lightning_hpo.exceptions import InputError, LightningHpoError, StoppedBySignalError, raise_problems
from lightning_hpo.terminal.library_output import collect_library_output, take_over_loggers
from lightning_hpo.terminal.printable import print_line
from lightning_hpo.terminal.standard_error import lasting_stderr

if TYPE_CHECKING:
    import optuna

    from lightning_hpo.callbacks import MLflowModelCheckpoint

__all__ = ["main"]

_process_is_own = False
"""Whether the process runs nothing but the command."""

Command = Callable[[Sequence[str]], int | None]
"""Takes the arguments, and returns the exit code, or None for 0."""

_WITH_CLASS_PATHS = ("fit", "validate", "test", "predict", "tune", "refit", "reproduce", "register")
"""Commands that import the classes that a config names."""

_FIRST_COMMANDS = (
    "cd {folder}",
    "lightning-hpo demo-data demo/data",
    "lightning-hpo tune --config configs/demo_criteria.yaml --study.name first",
)

_ENVIRONMENT = {
    # MLflow prints the address of each run on a server that ends.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # OpenMP threads wait for each other actively, for milliseconds. While another program has the CPU of one of them,
    # all wait for it, and training becomes many times slower. 10,000 rounds take some 30 microseconds: as fast on an
    # idle machine, and only a little slower than its share on a busy one. The second is for Intel's OpenMP.
    "GOMP_SPINCOUNT": "10000",
    "KMP_BLOCKTIME": "0",
}
"""Variables that libraries read when they are imported. The user's values take precedence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command and its arguments; by default those of the process.

    Returns:
        Exit code: 0; 1 when a study or a training has failed; 2 for input that cannot be used; 128 and the number of
        the signal that has stopped the command, such as 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if given[0] in ("-V", "--version"):
        print(__version__)
        return 0
    _prepare_process(given[0], whole=arguments is None)
    with lasting_stderr():
        try:
            with collect_library_output():
                _check_platform()
                _check_texts(given)
                return _command(given[0])(given[1:]) or 0
        except InputError as error:
            return _refuse(error, 2)
        except StoppedBySignalError as error:
            print_line(str(error), sys.stderr)
            return 128 + error.number
        except LightningHpoError as error:
            return _refuse(error, 1)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130


def _prepare_process(command: str, *, whole: bool) -> None:
    """Set what libraries read, before they are imported. `whole`: the process runs nothing but the command."""
    global _process_is_own
    _process_is_own = whole
    if whole:
        atexit.register(gc.freeze)  # or the garbage collector would traverse all modules when the process exits
        # Else the fork server would import modules of the current folder instead of Python's.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    if command in _WITH_CLASS_PATHS and str(Path.cwd()) not in sys.path:
        # Let class paths find the user's own modules. Last: the folder may contain a file such as optuna.py.
        sys.path.append(str(Path.cwd()))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Import without the garbage collector, which would traverse more and more modules for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    take_over_loggers()


@contextmanager
def _imports_with_server() -> Iterator[None]:
    """Import, and start the server that forks the trial processes."""
    from lightning_hpo.study.fork_server import keep_cuda_away, start_server

    if not _process_is_own:  # it may have threads, databases and GPUs, so that the server imports all by itself
        start_server()
    keep_cuda_away()
    with _quick_imports():
        yield
    start_server(forked=True)


def _check_platform() -> None:
    if sys.platform == "win32":
        raise InputError("lightning-hpo: got Windows, which is not supported; use WSL 2")


def _check_texts(arguments: Sequence[str]) -> None:
    """Refuse texts that neither a database nor a config can store: bytes that are not UTF-8, as in an old file name."""
    texts = {f"argument {place}": text for place, text in enumerate(arguments, start=1)}
    texts |= {name: os.environ.get(name, "") for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI")}
    texts["current folder"] = str(Path.cwd())
    for what, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{what}: got {text!r}, which is not UTF-8; use another name") from error


def _refuse(error: LightningHpoError, code: int) -> int:
    for line in str(error).splitlines():
        print_line(f"error: {line}", sys.stderr)
    return code


def _command(name: str) -> Command:
    if name not in _COMMANDS:
        raise InputError(f"{name}: no such command; there are: {', '.join(_COMMANDS)}")
    return _COMMANDS[name][0]


def _overview() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in _COMMANDS.items()]
    head = "usage: lightning-hpo COMMAND [ARGUMENTS]\n\n`lightning-hpo COMMAND --help` shows the arguments.\n"
    return "\n".join([head, *lines])


def _folder(text: str) -> Path:
    return Path(text).expanduser()


class _Parser(argparse.ArgumentParser):
    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"lightning-hpo {command}", description=description, allow_abbrev=False)

    def add_storage(self) -> None:
        from lightning_hpo.databases import DatabaseUrl, default_storage, masked

        url = partial(DatabaseUrl, flag="--storage")
        text = f"URL of Optuna's database; default: OPTUNA_STORAGE or {masked(default_storage())}".replace("%", "%%")
        self.add_argument("--storage", default=default_storage(), type=url, help=text)

    def add_tracking(self) -> None:
        from lightning_hpo.databases import default_tracking_uri, expand_home, masked

        text = f"MLflow's database or server; default: MLFLOW_TRACKING_URI or {masked(default_tracking_uri())}"
        self.add_argument(
            "--tracking_uri", default=default_tracking_uri(), type=expand_home, help=text.replace("%", "%%")
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments of a command that reads both databases, which must exist."""
        self.add_storage()
        self.add_tracking()
        given = self.parse_args(arguments)
        _require_database(given.tracking_uri)
        return given

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _require_database(uri: str) -> None:
    from lightning_hpo.databases import DatabaseUrl

    DatabaseUrl(uri, "--tracking_uri").require()


def _load_study(given: argparse.Namespace) -> "optuna.Study":
    with _quick_imports():
        from lightning_hpo.storage.studies import StudyDatabase

    return StudyDatabase(given.storage).load(given.study)


def _lightning(command: str) -> Command:
    def run(arguments: Sequence[str]) -> None:
        with _quick_imports():
            from lightning_hpo.callbacks.interruption import Interruption
            from lightning_hpo.config.agent_cli import AgentCLI
            from lightning_hpo.hardware.memory import keep_freed_memory

        keep_freed_memory()
        with Interruption() as interruption:
            AgentCLI([command, *arguments], run=True, mlflow_checkpoint=_mlflow_checkpoint, interruption=interruption)

    return run


def _mlflow_checkpoint() -> "MLflowModelCheckpoint":
    from lightning_hpo.callbacks import MLflowModelCheckpoint

    return MLflowModelCheckpoint()


def _predict(arguments: Sequence[str]) -> None:
    with _quick_imports():
        from lightning_hpo.callbacks.interruption import Interruption
        from lightning_hpo.callbacks.prediction_writer import PredictionWriter, whole_output
        from lightning_hpo.config.agent_cli import AgentCLI

    with Interruption() as interruption, whole_output(sys.stdout) as output, redirect_stdout(sys.stderr):
        kwargs = {"callbacks": [PredictionWriter(output)], "logger": False}
        AgentCLI(["predict", *arguments], run=True, trainer_kwargs=kwargs, interruption=interruption)


def _tune(arguments: Sequence[str]) -> int:
    shows_help = "--help" in arguments or "-h" in arguments
    with _quick_imports() if shows_help else _imports_with_server():
        from lightning_hpo.config.agent_cli import AgentCLI
        from lightning_hpo.config.errors import with_files
        from lightning_hpo.databases import masked
        from lightning_hpo.storage.settings import StudySettings
        from lightning_hpo.study.session import local_workers
        from lightning_hpo.study.spec import StudySpec
        from lightning_hpo.tune import tune

    cli = AgentCLI(arguments, instantiate=False, study=StudySettings)
    study = cli.config.study
    given = {**study.as_dict(), "from_": study["from"], "sampler": None, "pruner": None}
    settings = StudySettings(**{name: value for name, value in given.items() if name != "from"})
    spec = StudySpec(
        cli.values,
        cli.config.search_space or {},
        settings,
        study.sampler,
        study.pruner,
        command=shlex.join(["lightning-hpo", "tune", *map(masked, arguments)]),
    )
    try:
        return tune(spec, local_workers(spec))
    except InputError as error:
        raise InputError(with_files(error.problems, arguments)) from error


def _status(arguments: Sequence[str]) -> None:
    parser = _Parser("status", "Show the state of a study. It writes nothing, so it may run while `tune` runs.")
    parser.add_argument("--study", help="name of the study; default: one line for each study")
    parser.add_argument("--json", action="store_true", help="print JSON; docs/how-to/check-a-study.md lists its keys")
    parser.add_storage()
    given = parser.parse_args(arguments)
    with _quick_imports():
        from lightning_hpo.report.status import print_status

    print_status(given.study, given.storage, as_json=given.json)


def _report(arguments: Sequence[str]) -> None:
    parser = _Parser("report", "Write one HTML page about a study, readable offline, and its figures as PNG files.")
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    parser.add_argument(
        "--output", type=_folder, metavar="FOLDER", help="folder to write; default: OUTDIR/STUDY/report"
    )
    parser.add_storage()
    parser.add_tracking()
    given = parser.parse_args(arguments)
    study = _load_study(given)
    tracked = "agent" in study.user_attrs  # an imported study has no runs
    if tracked:
        _require_database(given.tracking_uri)
    try:
        with _quick_imports():
            from lightning_hpo.report.write import write_report
            from lightning_hpo.tracking.tracker import Tracker
    except ModuleNotFoundError as error:
        raise InputError(f"report: it needs {error.name}; pip install 'lightning-text-hpo[report]'") from error

    for line in write_report(study, Tracker(given.tracking_uri) if tracked else None, given.output):
        print_line(line)


def _refit(arguments: Sequence[str]) -> int:
    parser = _Parser("refit", "Retrain the best trials with other seeds, then score the test split once.")
    parser.add_argument("study", metavar="STUDY", help="name of the study; its refit becomes the study STUDY-refit")
    parser.add_argument("--trials", type=int, default=3, help="number of best trials; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds for each trial; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="number of parallel trials; default: %(default)s")
    parser.add_argument(
        "--per_device", type=int, default=1, help="number of trials that share a GPU; default: %(default)s"
    )
    parser.add_argument(
        "--trial_timeout", type=float, help="seconds without a sign of life after which a trial is killed and resumed"
    )
    parser.add_argument("--no-test", dest="test", action="store_false", help="do not score the test split")
    parser.add_argument(
        "--keep",
        type=int,
        help="number of the winner's best seeds that keep their weights, a checkpoint each, for `register --soup` and "
        "`--ensemble`; default: all; the scored seed keeps them anyway",
    )
    given = parser.parse(arguments)
    with _imports_with_server():
        from lightning_hpo.refit.refit import RefitSettings, refit

    return refit(RefitSettings(**vars(given)))


def _reproduce(arguments: Sequence[str]) -> None:
    parser = _Parser("reproduce", "Print the command that retrains a trial, and list what has changed since.")
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    parser.add_argument("--trial", type=int, help="number of the trial; default: the best one")
    parser.add_argument("--run", action="store_true", help="retrain the trial and compare the values")
    given = parser.parse(arguments)
    study = _load_study(given)
    with _quick_imports():
        from lightning_hpo.callbacks.interruption import Interruption
        from lightning_hpo.tracking.tracker import Tracker
        from lightning_hpo.trial.reproduce import reproduce

    shown = sys.stdout
    with Interruption() as interruption, redirect_stdout(sys.stderr):  # the output of Lightning while it trains
        for line in reproduce(
            study, Tracker(given.tracking_uri), given.trial, run=given.run, interruption=interruption
        ):
            print_line(line, shown)


def _register(arguments: Sequence[str]) -> None:
    given = _register_parser().parse(arguments)
    from lightning_hpo.databases import registry_problems

    raise_problems(registry_problems(given.tracking_uri))
    if given.kind is not None:
        _register_combined(given)
        return
    study = _load_study(given)
    from lightning_hpo.study.fork_server import start_server
    from lightning_hpo.study.workers import LocalWorkers

    start_server()
    with _quick_imports():
        from lightning_hpo.registry.register import register
        from lightning_hpo.tracking.errors import one_line_errors
        from lightning_hpo.tracking.tracker import Tracker

    print("registering the model, and verifying it in a new process", file=sys.stderr)
    with one_line_errors():
        tracker, workers = Tracker(given.tracking_uri), LocalWorkers(1)
        print_line(register(study, tracker, workers, number=given.trial, promote=given.promote))


def _register_parser() -> _Parser:
    parser = _Parser("register", "Register a model, verify it in a new process, and move the alias.")
    parser.add_argument("--study", required=True, help="name of the study")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--trial", type=int, help="number of the trial; default: the best one")
    soup = (
        "after `refit`: average the weights of the winner's seeds, which have the same config. It starts from the best "
        "one, and leaves out those that worsen the validation score. Serving costs as much as one seed"
    )
    ensemble = (
        "after `refit`: one model that averages the logits of all n seeds of the winner. Its size, and memory and time "
        "when it is served, are n times those of one seed"
    )
    for kind, text in (("soup", soup), ("ensemble", ensemble)):
        models.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=text)
    moves = parser.add_mutually_exclusive_group()
    moves.add_argument(
        "--promote", action="store_true", default=None, help="move the alias even if its current model is better"
    )
    moves.add_argument("--no-promote", dest="promote", action="store_false", help="do not move the alias")
    return parser


def _register_combined(given: argparse.Namespace) -> None:
    from lightning_hpo.study.fork_server import start_server
    from lightning_hpo.study.workers import LocalWorkers

    start_server()
    with _quick_imports():
        from lightning_hpo.refit.combined_models import register_combined
        from lightning_hpo.storage.studies import StudyDatabase
        from lightning_hpo.tracking.errors import one_line_errors
        from lightning_hpo.tracking.tracker import Tracker

    with one_line_errors():
        tracker, database = Tracker(given.tracking_uri), StudyDatabase(given.storage)
        for line in register_combined(
            given.kind, given.study, database, tracker, LocalWorkers(1), promote=given.promote
        ):
            print_line(line)


def _reconcile(arguments: Sequence[str]) -> None:
    parser = _Parser("reconcile", "Find where the two databases and the trial folders disagree, and repair it.")
    parser.add_argument("--study", help="name of the study; default: all studies")
    parser.add_argument("--dry-run", action="store_true", help="report without repairing")
    given = parser.parse(arguments)
    with _quick_imports():
        from lightning_hpo.storage.studies import StudyDatabase
        from lightning_hpo.study.reconciliation import reconcile
        from lightning_hpo.tracking.checks import check_tracking
        from lightning_hpo.tracking.errors import one_line_errors
        from lightning_hpo.tracking.tracker import Tracker

    check_tracking(given.tracking_uri)
    database = StudyDatabase(given.storage)
    for study in map(database.load, database.names() if given.study is None else [given.study]):
        with one_line_errors():
            for line in reconcile(study, Tracker(given.tracking_uri), dry_run=given.dry_run):
                print_line(f"{study.study_name}: {line}")


def _import_study(arguments: Sequence[str]) -> None:
    from lightning_hpo.databases import DatabaseUrl

    parser = _Parser("import-study", "Copy studies with all their trials from another Optuna database.")
    source = partial(DatabaseUrl, flag="--from")
    text = "URL of the other database, which is only read"
    parser.add_argument("--from", dest="source", required=True, type=source, help=text)
    parser.add_argument("--study", help="name of the study; default: all studies")
    parser.add_storage()
    given = parser.parse_args(arguments)
    with _quick_imports():
        from lightning_hpo.storage.import_study import import_studies

    for line in import_studies(given.source, given.storage, given.study):
        print_line(line)


def _ui(arguments: Sequence[str]) -> None:
    parser = _Parser("ui", "Serve MLflow's web pages for the tracking database, to this machine only.")
    parser.add_argument("--port", type=int, default=5000, help="port of the pages; default: %(default)s")
    parser.add_tracking()
    given = parser.parse_args(arguments)
    from lightning_hpo.databases import DatabaseUrl

    url = DatabaseUrl(given.tracking_uri, "--tracking_uri")
    url.require()
    if url.is_server:
        raise InputError(f"--tracking_uri: {url.masked} is a server that has its own pages; open it in a browser")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(given.port)]
    # In the environment: every user of the machine can read the arguments, and the URL may contain a password.
    places = {"MLFLOW_BACKEND_STORE_URI": url.url, "MLFLOW_REGISTRY_STORE_URI": url.url}
    notice = "the pages have no login: each user of this machine can read, change and delete runs and models"
    print(notice, file=sys.stderr, flush=True)
    # Replace this process, so that a signal to it reaches the server.
    os.execve(command[0], command, {**os.environ, **places})


def _init(arguments: Sequence[str]) -> None:
    parser = _Parser("init", "Write configs and search spaces to start from. No file is overwritten.")
    parser.add_argument("folder", metavar="FOLDER", type=_folder, help="the files go to FOLDER/configs")
    given = parser.parse_args(arguments)
    from lightning_hpo.config.starter_configs import write_starter_configs

    written = write_starter_configs(given.folder)
    print(f"wrote {len(written)} files to {given.folder / 'configs'}; a first study on synthetic posts:")
    for line in _FIRST_COMMANDS:
        print(f"  {line.format(folder=shlex.quote(str(given.folder)))}")


def _demo_data(arguments: Sequence[str]) -> None:
    parser = _Parser("demo-data", "Write a synthetic corpus in the format of ReDSM5, and a small encoder for it.")
    parser.add_argument("folder", help="folder to write to; it must not hold a corpus yet", type=_folder)
    parser.add_argument("--posts", type=int, default=300, help="number of posts; default: %(default)s")
    parser.add_argument("--seed", type=int, default=17, help="default: %(default)s")
    given = parser.parse_args(arguments)

    with _quick_imports():
        from lightning_hpo.data.demo import write_demo

    print("writing the posts and training a small encoder on them; this takes half a minute", file=sys.stderr)
    write_demo(given.folder, posts=given.posts, seed=given.seed)
    print(f"wrote {given.posts} posts, their annotations, the criteria and an encoder to {given.folder}")


def _forget(arguments: Sequence[str]) -> None:
    text = "Remove the copies of posts and tokens that are kept next to a file of posts. No other file is removed."
    parser = _Parser("forget", text)
    parser.add_argument("folder", metavar="DIR", type=_folder, help="folder of the file of posts")
    given = parser.parse_args(arguments)
    with _quick_imports():
        from lightning_hpo.data.forget import forget

    print_line(forget(given.folder))


_COMMANDS: dict[str, tuple[Command, str]] = {
    "fit": (_lightning("fit"), "train one config"),
    "validate": (_lightning("validate"), "score a checkpoint on the validation split"),
    "test": (_lightning("test"), "score a checkpoint on the test split"),
    "predict": (_predict, "print predictions for raw posts, one JSON object per line"),
    "tune": (_tune, "search hyperparameters; the same command resumes a stopped study"),
    "status": (_status, "show the state of a study"),
    "report": (_report, "write an HTML page and figures of a study"),
    "refit": (_refit, "train the best trials again with other seeds, and score the test split once"),
    "reproduce": (_reproduce, "print how to retrain a trial and what has changed, or retrain it and compare"),
    "register": (_register, "register a study's best model"),
    "reconcile": (_reconcile, "repair what the two databases and the trial folders disagree about"),
    "import-study": (_import_study, "copy studies from another Optuna database"),
    "forget": (_forget, "remove the copies of posts that are kept in a data folder"),
    "ui": (_ui, "serve MLflow's web pages on this machine"),
    "init": (_init, "write configs and search spaces to start from"),
    "demo-data": (_demo_data, "write a synthetic corpus and a small encoder for a first try"),
}
