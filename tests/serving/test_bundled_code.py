"""What a model brings along needs no more than the model's own requirements, and is a package of its own."""

import ast
import sys
from pathlib import Path

from lightning_hpo.serving.bundled_code import write_served_code

PUBLIC = {"mlflow", "numpy", "pandas", "tokenizers", "torch"}


def _imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # What is imported for the type checker alone is no need.
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in modules if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in names | {str(n.module) for n in modules if isinstance(n, ast.ImportFrom)}}


def test_it_needs_public_packages_and_itself(tmp_path: Path) -> None:
    package, loader = write_served_code(tmp_path)
    files = list(package.rglob("*.py"))
    assert loader == f"{package.name}.text_model"
    assert package / "text_model.py" in files
    imported = set().union(*map(_imported, files))
    assert imported - set(sys.stdlib_module_names) == PUBLIC | {package.name}


def test_its_name_follows_from_what_it_holds(tmp_path: Path) -> None:
    first, _ = write_served_code(tmp_path / "first")
    again, _ = write_served_code(tmp_path / "again")
    assert first.name == again.name
    assert first.name.startswith("lightning_hpo_")
