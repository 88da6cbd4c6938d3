"""Who may import whom: the fences that CONTRIBUTING.md's map draws."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lightning_hpo"

HOMES = {
    "optuna": {
        "preload",
        "tune",
        "checks",
        "trial",
        "search_space",
        "dimension",
        "study",
        "stage",
        "standing",
        "screen",
        "samplers",
        "pruners",
        "import_study",
        "patient_storage",
        "study_line",
        "endings",
        "reconciliation",
        "weights",
        "registry",
        "refit",
        "reproduce",
        "refit_result",
        "job",
        "report",
        "status",
    },
    "optuna_integration": {"callbacks/pruning", "preload"},
    "mlflow": {"tracking", "registry", "serving", "text_model", "preload"},
    "jsonargparse": {"cli", "config", "config_errors", "class_paths", "samplers", "pruners", "job"},
    "transformers": {"agents", "data", "preload"},
    "plotly": {"report/interactive"},
    "matplotlib": {"report/still"},
    "jinja2": {"report/page"},
    "nlpaug": {"data/augmentation/nlpaug_methods"},
    "nltk": {"data/augmentation/synonyms"},
    "multiprocessing": {
        "workers",
        "trial",
        "study_line",
        "preflight",
        "registry",
        "refit_result",
        "callbacks/progress_report",
    },
    "scipy": {"seed_scores"},
}

MAY_IMPORT_INSIDE = {
    "exceptions": set(),
    "databases": {"exceptions"},
    "bf16": set(),
    "agents": {"agents", "bf16", "data", "exceptions"},
    "data": {"data", "exceptions"},
    "callbacks": {"callbacks", "exceptions", "journal", "tracking", "trial_files", "serving"},
    "trial_files": set(),
    "tracking": {"databases", "exceptions"},
    "workers": set(),
    "journal": {"tracking"},
    "endings": {"journal"},
    "report": {"endings", "exceptions", "pace", "report", "tracking", "trial_files"},
    "reconciliation": {"claim", "endings", "exceptions", "journal", "tracking", "weights"},
}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix(""))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    name, imported = _name(path), {module.split(".")[0] for module in _imports(path)}
    for library, homes in HOMES.items():
        at_home = name in homes or name.split("/")[0] in homes
        assert at_home or library not in imported, f"{name} imports {library}, which lives in {sorted(homes)}"


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    name = _name(path)
    allowed = MAY_IMPORT_INSIDE.get(name.split("/")[0])
    own = {module.split(".")[1] for module in _imports(path) if module.startswith("lightning_hpo.")} - {"__version__"}
    assert "cli" not in own or name == "__main__", f"{name} imports cli"
    if allowed is not None:
        assert own <= allowed, f"{name} imports {sorted(own - allowed)}"
