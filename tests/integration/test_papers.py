"""README, CONTRIBUTING, CITATION and the files of GitHub and pre-commit agree with the project."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import lightning_hpo

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_hpo"
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs")
# Single words are in .codespell-words.txt, which scripts/test checks.
PHRASES = (
    "all the same",
    "as far as",
    "constant answer",
    "goes on with",
    "gone on with",
    "graphics card",
    "in one go",
    "made-up",
    "of its own",
)


def _rows(heading: str) -> list[tuple[str, str]]:
    """Return the first two cells of the table under a heading of CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")][1:]
    return [(first, second) for first, second in cells]


def test_map_names_every_module_and_package() -> None:
    named = {PACKAGE / name for first, _ in _rows("Map of the package") for name in re.findall(r"`([^`]+)`", first)}
    existing = {
        path
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }
    assert named == existing


def test_files_of_example_tasks_exist() -> None:
    named = [name for _, second in _rows("Where do I find …") for name in re.findall(r"`([^`]+)`", second)]
    assert [name for name in named if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("phrase", PHRASES)
def test_prose_uses_standard_terms(phrase: str) -> None:
    pages = [
        page for name in PROSE for page in ([ROOT / name] if name.endswith(".md") else (ROOT / name).rglob("*.md"))
    ]
    pattern = re.compile(re.escape(phrase).replace(r"\ ", r"\s+"), flags=re.IGNORECASE)
    assert [page.name for page in pages if pattern.search(page.read_text(encoding="utf-8"))] == []


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == lightning_hpo.__version__
    assert citation["license"] == project["license"]


def test_workflow_runs_the_test_script() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert job["steps"][-1]["run"].startswith("scripts/test ")


def test_pre_commit_config_is_valid() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", str(config)], check=True, timeout=60)
