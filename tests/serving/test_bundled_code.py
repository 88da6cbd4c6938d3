"""The bundled code imports the model's own requirements and itself, and nothing else."""

import ast
import sys
from pathlib import Path

from lightning_hpo.serving.bundled_code import write_bundled_code

REQUIREMENTS = {"mlflow", "numpy", "pandas", "regex", "tokenizers", "torch"}


def _imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in modules if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in names | {str(n.module) for n in modules if isinstance(n, ast.ImportFrom)}}


def test_bundle_imports_only_requirements_and_itself(tmp_path: Path) -> None:
    package, loader = write_bundled_code(tmp_path)
    files = list(package.rglob("*.py"))
    assert loader == f"{package.name}.serving.text_model"
    assert package / "serving/text_model.py" in files
    imported = set().union(*map(_imported, files))
    assert imported - set(sys.stdlib_module_names) == REQUIREMENTS | {package.name}


def test_bundle_name_depends_on_content_only(tmp_path: Path) -> None:
    first, _ = write_bundled_code(tmp_path / "first")
    second, _ = write_bundled_code(tmp_path / "second")
    assert first.name == second.name
    assert first.name.startswith("lightning_hpo_")
