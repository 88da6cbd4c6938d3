from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.errors import early_errors, nearest, with_files
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.storage.settings import StudySettings


@pytest.fixture
def good(tmp_path: Path, foreign_config: dict[str, Any]) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(foreign_config))
    return str(path)


@pytest.fixture
def bad(tmp_path: Path, foreign_config: dict[str, Any]) -> str:
    path = tmp_path / "bad.yaml"
    foreign_config["model"]["init_args"] = {"lrr": 1, "hidden": "many"}
    foreign_config["trainer"]["max_epohcs"] = 2
    path.write_text(yaml.safe_dump({**foreign_config, "trainr": {"x": 1}}))
    return str(path)


def _problems(arguments: Sequence[str] | dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        AgentCLI(arguments, instantiate=False, **options)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


_IN_BAD = [
    "model.hidden: Expected a int. Got value: many",
    "model.lrr: there is no such flag; did you mean model.lr?",
    "trainer.max_epohcs: there is no such flag; did you mean trainer.max_epochs?",
    "trainr.x: there is no such flag; --help lists all flags",
]


@pytest.mark.parametrize("subcommand", [[], ["fit"], ["validate"]])
def test_all_errors_of_a_file_are_reported_with_file_and_key(bad: str, subcommand: list[str]) -> None:
    problems = _problems([*subcommand, "--config", bad], run=bool(subcommand))
    assert sorted(problems) == [f"{bad}: {line}" for line in _IN_BAD]


@pytest.mark.parametrize("subcommand", [[], ["fit"]])
def test_all_errors_of_the_flags_are_reported_at_once(good: str, subcommand: list[str]) -> None:
    flags = ["--model.lr", "fast", "--trainer.max_epohcs=3", "--data.rows=few", "--aug.p_aply", "0.1"]
    assert sorted(_problems([*subcommand, "--config", good, *flags], run=bool(subcommand))) == [
        "--aug.p_aply: there is no such flag; did you mean aug.p_apply?",
        "--data.rows: Expected a int. Got value: few",
        "--model.lr: Expected a float. Got value: fast",
        "--trainer.max_epohcs: there is no such flag; did you mean trainer.max_epochs?",
    ]


def test_errors_of_files_and_flags_are_reported_together(good: str, bad: str) -> None:
    problems = _problems(["--config", good, f"--config={bad}", "--data.rows", "few"])
    assert sorted(problems) == ["--data.rows: Expected a int. Got value: few", *(f"{bad}: {line}" for line in _IN_BAD)]


def test_errors_of_a_config_that_is_in_no_file(bad: str) -> None:
    config = yaml.safe_load(Path(bad).read_text())
    before = yaml.safe_dump(config)
    assert sorted(_problems(config)) == [f"--{line}" for line in _IN_BAD]
    assert yaml.safe_dump(config) == before


def test_errors_of_study_settings_are_reported(good: str) -> None:
    flags = ["--study.n_trials", "many", "--study.seeed", "1", "--study.mode", "most"]
    assert sorted(_problems(["--config", good, *flags], study=StudySettings)) == [
        "--study.mode: Expected a typing.Literal['max', 'min']; got most",
        "--study.n_trials: Expected a int. Got value: many",
        "--study.seeed: there is no such flag; did you mean study.seed?",
    ]


def test_missing_files_and_invalid_yaml_are_reported(tmp_path: Path) -> None:
    broken, gone, text = tmp_path / "broken.yaml", tmp_path / "gone.yaml", tmp_path / "text.yaml"
    broken.write_text("model:\n  lr: [1\n")
    text.write_text("just words")
    arguments = [word for path in (broken, gone, text) for word in ("--config", str(path))]
    problems = _problems(arguments)
    assert problems[0].startswith(f"--config {broken} line 3: not valid YAML (")
    assert problems[1:] == [
        f"--config {gone}: No such file or directory",
        f"--config {text}: contains no settings; write them as `key: value` lines",
    ]


def test_a_binary_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert _problems(["--config", str(path)]) == [f"--config {path}: not valid YAML (not UTF-8 text)"]


def test_config_without_a_path_is_rejected() -> None:
    assert _problems(["--config"]) == ["--config: got no file; give the path of a YAML file"]


def test_missing_sections_are_reported() -> None:
    assert sorted(_problems([])) == [
        f"--{key}: required; set it with a flag or in a --config file" for key in ("data", "model")
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tests.foreign.Nope", "module 'tests.foreign' has no attribute 'Nope'"),
        ("tests.nowhere.Module", "module 'tests' has no attribute 'nowhere'"),
        ("tests.foreign.ForeignData", "Import path does not correspond to a subclass of LightningModule"),
    ],
)
def test_an_invalid_class_path_is_reported(good: str, name: str, reason: str) -> None:
    assert _problems(["--config", good, "--model", name]) == [f"--model: {reason}; got {name}"]


def test_empty_init_args_are_reported(tmp_path: Path, foreign_config: dict[str, Any]) -> None:
    foreign_config["model"]["init_args"] = None
    path = tmp_path / "empty.yaml"
    path.write_text(yaml.safe_dump(foreign_config))
    problems = _problems(["--config", str(path), "--data.rows", "few"])
    assert problems[0].startswith(f"{path}: model: ")
    assert "--data.rows: Expected a int. Got value: few" in problems


def test_a_flag_without_a_value_is_reported(good: str) -> None:
    assert _problems(["--config", good, "--trainer.max_epochs"]) == ["--trainer.max_epochs: expected one argument"]


def test_a_negative_number_is_not_taken_for_a_flag(good: str) -> None:
    assert _problems(["--config", good, "--model.lr", "-.5", "--model.hidden", "x"]) == [
        "--model.hidden: Expected a int. Got value: x"
    ]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("model.optim.l", "model.optim.lr"),
        ("trainer.lr", "model.optim.lr"),
        ("data.optim.lr", "model.optim.lr"),
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("something.else", None),
    ],
)
def test_the_most_similar_name_is_suggested(name: str, offered: str | None) -> None:
    known = ["trainer.logger", "trainer.max_epochs", "model.optim.lr", "model.head.layers"]
    assert nearest(name, known) == ("" if offered is None else f"; did you mean {offered}?")


def test_problems_of_a_search_space_are_reported_with_their_file(tmp_path: Path) -> None:
    spaces = {"a.yaml": "{model.lr: {low: 0}}", "b.yaml": "{data.stride: {low: 0}, 3: 4}", "c.yaml": "1"}
    arguments = ["tune"]
    for name, space in spaces.items():
        (tmp_path / name).write_text(f"search_space: {space}\n", encoding="utf-8")
        arguments += ["--config", str(tmp_path / name)]
    lines = [
        "search_space: model.lr: got 3",
        "search_space: with the encoder x: --data.stride: 9 is too much",
        "search_space: model.other: there is no such flag",
        "--model.lr: got -1",
    ]
    found = with_files(lines, arguments)
    assert found[:2] == [f"{tmp_path}/a.yaml: {lines[0]}", f"{tmp_path}/b.yaml: {lines[1]}"]
    assert found[2:] == lines[2:]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("No module named 'cmaes'"), "ModuleNotFoundError: No module named 'cmaes'"),
        (RuntimeError("\nuse --ntasks=1\nand more"), "RuntimeError: use --ntasks=1"),
        (ValueError("http://me:secret@host"), "ValueError: http://me:***@host"),
        (AssertionError(), "AssertionError"),
        (InputError("--data.posts: no such file"), "--data.posts: no such file"),
    ],
)
def test_early_error_has_its_message(error: Exception, line: str) -> None:
    with pytest.raises(LightningHpoError) as raised, early_errors():
        raise error
    assert str(raised.value) == line
