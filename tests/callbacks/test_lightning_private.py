"""The functions themselves are tested by the resumes in test_resume_checkpoint.py and test_random_state.py."""

import ast
import importlib
from pathlib import Path

import lightning
import pytest

from lightning_hpo.callbacks import lightning_private


def _private_names(path: Path) -> list[str]:
    """Private attributes of other objects than `self` and `super()`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found += [] if isinstance(node.value, ast.Name) and node.value.id == "self" else [node.attr]
    return found


def test_no_other_callback_uses_private_names() -> None:
    folder = Path(lightning_private.__file__).parent
    using = {path.name for path in folder.glob("*.py") if _private_names(path)}
    assert using == {"lightning_private.py"}


def test_untested_version_of_lightning_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning, "__version__", "2.99.1")
    with pytest.warns(UserWarning, match=r"tested with Lightning 2\.6, not 2\.99\.1; install lightning==2\.6\.\*$"):
        importlib.reload(lightning_private)
