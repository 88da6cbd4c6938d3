"""README and docs: every command and code block runs, with smaller studies; every link leads somewhere."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import optuna
import pytest

from lightning_hpo.cli import main
from lightning_hpo.data.demo_corpus import DemoCorpus
from tests.document import Reader, blocks
from tests.project_sandbox import ROOT, ProjectSandbox

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MARKDOWN = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *PAGES]
# An untrained encoder predicts probabilities near 0.5, so bf16 rounding could change some labels.
SHORT = " --study.n_trials 1 --study.pruner optuna.pruners.NopPruner --trainer.max_epochs 1 --trainer.precision 32-true"


def _shortened(command: str) -> str:
    """Return a faster form of a command, or nothing if another test runs it or it would block the shell."""
    if re.match(r"scripts/|export PATH|pip |lightning-hpo (demo-data|ui|status --study demo-)", command):
        return ""
    words = re.sub(r"--study.(n_trials|workers|per_device) \d+|--study.devices \S+ \S+", "", command)
    words = words.replace("trial_7", "trial_0").replace("--n-trials 20", "--n-trials 1").rstrip()
    if re.search(r"--study.name mine|configs/stages/", words):
        words += " --study.register false"  # it exports every encoder of the search space, as in other studies
    if "tune" in words:
        words += SHORT + (" --data.eval_batch_size 256" if "configs/" in words or "tune_max" in words else "")
    if " refit " in words:
        words += " --trials 1 --seeds 2"
    return words + (" --trainer.max_epochs 1" if " fit " in words else "")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Reader that has run the README, in a folder with demo data, ReDSM5 files and the encoders of the configs."""
    project = ProjectSandbox(tmp_path_factory.mktemp("docs"))
    for name in ("demo/data", "my"):
        (project.folder / name).mkdir(parents=True)
        DemoCorpus(60, 17).write(project.folder / name)
    for path in (project.folder / "my/annotations.csv", project.folder / "my/criteria.yaml"):  # other criteria
        path.write_text(path.read_text(encoding="utf-8").replace("SLEEP_ISSUES", "INSOMNIA"), encoding="utf-8")
    (project.folder / "demo/data/encoder").symlink_to(project.encoder("roberta-base"))
    (project.folder / "new_posts.csv").write_text("post_id,text\nn1,I lie awake every night.\n", encoding="utf-8")
    (project.folder / "_optuna").mkdir()
    old = optuna.create_study(study_name="old", storage=f"sqlite:///{project.folder}/_optuna/noaug.db")
    old.optimize(lambda trial: trial.suggest_float("lr", 0.0, 1.0), n_trials=2)
    reader = Reader(project, _shortened)
    try:
        reader.follow(README)
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_code_on_page_run(page: Path, reader: Reader) -> None:
    reader.follow(page)
    for command, output in reader.answers.items():
        if command.startswith("curl"):
            (row,) = json.loads(output)["predictions"]
            assert row == {"met": ANY, "probability": ANY, "threshold": ANY, "free_text": False, "problem": ""}
            assert 0 < row["probability"] < 1
        if " predict " in command:
            assert '"post_id": "n1"' in output
            assert "awake" not in output


def test_every_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    existing = re.findall(r"^  ([\w-]+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    documented = {line for page in (README, *PAGES) for block in blocks(page) for line in block.commands}
    assert [name for name in existing if not any(line.startswith(f"lightning-hpo {name}") for line in documented)] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8") if anchor else "", flags=re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_index_lists_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"{page.name})" not in index] == []


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    command = (ROOT / "scripts/docs").read_text(encoding="utf-8").splitlines()[-1]
    words = shlex.split(command.replace("docs/_build", str(tmp_path)).replace(' "$@"', ""))
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.rglob("*.html")} > {page.stem for page in PAGES}
