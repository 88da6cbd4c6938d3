"""Mistakes in data, encoders and flags: `tune` reports one line each, exits with code 2 and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_hpo.cli import main
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.posts import read_posts
from tests.hub import write_hub
from tests.project_sandbox import ROOT
from tests.unchanged import unchanged


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    DemoCorpus(20, 17).write(folder)
    write_hub(folder, list(read_posts(folder / "posts.csv").values()))
    return next((folder / "models--roberta-base" / "snapshots").iterdir())


@pytest.fixture
def sandbox(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    DemoCorpus(30, 17).write(folder)
    (tmp_path / "encoder").symlink_to(encoder)
    return tmp_path


def _replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(sandbox: Path) -> None:
        text = (sandbox / path).read_text(encoding="utf-8")
        assert old in text
        (sandbox / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def _write(path: str, text: str) -> Callable[[Path], None]:
    return lambda sandbox: _text(sandbox / path, text)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


CASES: dict[str, tuple[Callable[[Path], None], list[str], list[str]]] = {
    "missing file": (lambda sandbox: (sandbox / "data/posts.csv").unlink(), [], ["data/posts.csv"]),
    "wrong column": (
        _replace("data/posts.csv", "post_id,text", "post_id,txt"),
        [],
        ["data/posts.csv", "no column text", "txt"],
    ),
    "typo in a symptom": (
        _replace("data/annotations.csv", ",FATIGUE,", ",FATIGE,"),
        [],
        ["data/annotations.csv", "line", "DSM5_symptom", "FATIGUE"],
    ),
    "empty file": (_write("data/posts.csv", ""), [], ["data/posts.csv", "empty"]),
    "header only": (_write("data/posts.csv", "post_id,text\n"), [], ["data/posts.csv"]),
    "unknown status": (_replace("data/annotations.csv", ",1,", ",yes,"), [], ["data/annotations.csv", "status"]),
    "unknown encoder": (lambda sandbox: None, ["--model.name", "./nowhere"], ["--model.name", "nowhere"]),
    "windows too small": (lambda sandbox: None, ["--data.stride", "127"], ["--data.stride"]),
    "too long for the encoder": (lambda sandbox: None, ["--data.max_length", "4096"], ["--data.max_length"]),
    "no share for validation": (lambda sandbox: None, ["--data.val_fraction", "0"], ["--data.val_fraction"]),
    "several devices": (
        lambda sandbox: None,
        ["--trainer.devices", "2"],
        ["--trainer.devices: got 2", "--study.workers"],
    ),
    "a list of devices": (lambda sandbox: None, ["--trainer.devices", "[0, 1]"], ["--trainer.devices: got [0, 1]"]),
    "learning rate below zero": (lambda sandbox: None, ["--model.optim.lr=-1"], ["--model.optim.lr"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("agent", ["criteria", "evidence"])
def test_a_mistake_is_reported_in_one_line_and_nothing_is_left_behind(
    sandbox: Path, capsys: pytest.CaptureFixture[str], agent: str, case: str
) -> None:
    change, flags, wanted = CASES[case]
    change(sandbox)
    config = ["--config", str(ROOT / "configs" / f"demo_{agent}.yaml"), "--data.posts", "data/posts.csv"]
    config += ["--data.annotations", "data/annotations.csv", "--data.criteria", "data/criteria.yaml"]
    with unchanged(sandbox):
        code = main(["tune", *config, "--model.name", "./encoder", "--study.name", "bad", *flags])
    printed = capsys.readouterr().err
    assert code == 2, printed
    assert all(part in printed for part in wanted), printed
    assert "Traceback" not in printed
    assert all(line.startswith(("error: ", "checking the data")) for line in printed.splitlines())


SPACES: dict[str, tuple[str, str]] = {
    "bound that violates a rule of the flag": (
        "model.optim.layer_decay: {low: 0.5, high: 1.5}",
        "model.optim.layer_decay: 1.5 is not valid: --model.optim.lay",
    ),
    "bounds without room for a post": (
        "data.max_length: {low: 64, high: 128}, data.stride: {low: 16, high: 60}",
        "with the encoder ./encoder: --data.max_length: 64 is too small: the criteria take up to ",
    ),
    "longer than one of the encoders accepts": (
        "model.name: {choices: [./encoder, ./other]}, data.max_length: {low: 128, high: 576}",
        "with the encoder ./other: --data.max_length: 576 is more than the 512 tokens that the ",
    ),
    "more layers than the encoder has": (
        "model.freeze_layers: {low: 0, high: 6}",
        "with the encoder ./encoder: --model.freeze_layers: got 6, but the encoder has 1 layers",
    ),
}


@pytest.mark.parametrize("case", SPACES)
def test_an_invalid_bound_of_the_search_space_is_reported_before_the_study_begins(
    sandbox: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    space, expected = SPACES[case]
    (sandbox / "other").symlink_to(sandbox / "encoder")
    _text(sandbox / "space.yaml", f"search_space: {{{space}}}\n")
    config = ["--config", str(ROOT / "configs" / "demo_criteria.yaml"), "--config", "space.yaml"]
    config += [word for name in ("posts", "annotations") for word in (f"--data.{name}", f"data/{name}.csv")]
    flags = ["--data.criteria", "data/criteria.yaml", "--model.name", "./encoder", "--study.name", "bad"]
    with unchanged(sandbox):
        assert main(["tune", *config, *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert any(line.startswith(f"error: space.yaml: search_space: {expected}") for line in lines), lines
