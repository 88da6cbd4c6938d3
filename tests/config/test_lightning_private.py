"""The functions are tested by the resumes in tests/callbacks, and `ReplaceableCLI` by test_agent_cli.py."""

import ast
import importlib
from pathlib import Path

import lightning
import pytest
from lightning.pytorch.cli import LightningCLI

from lightning_hpo.config import lightning_private
from lightning_hpo.config.agent_cli import AgentCLI


def _private_names(path: Path) -> list[str]:
    """Return the private attributes of other objects than `self`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found += [] if isinstance(node.value, ast.Name) and node.value.id == "self" else [node.attr]
    return found


def test_no_callback_uses_private_names() -> None:
    folder = Path(lightning_private.__file__).parents[1] / "callbacks"
    assert {path.name for path in folder.glob("*.py") if _private_names(path)} == set()


def test_command_line_overrides_no_private_step() -> None:
    private = {name for name in vars(LightningCLI) if name.startswith("_") and not name.startswith("__")}
    assert private & vars(AgentCLI).keys() == set()


def test_untested_version_of_lightning_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lightning, "__version__", "2.99.1")
    importlib.reload(lightning_private)
    assert "tested with Lightning 2.6, not 2.99.1; install lightning==2.6.*" in caplog.text
