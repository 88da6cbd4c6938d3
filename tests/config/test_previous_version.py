from pathlib import Path
from typing import Any

import pytest

from lightning_hpo.config.agent_cli import AgentCLI, resolve
from lightning_hpo.config.flags import as_yaml, flags, read_yaml
from lightning_hpo.config.previous_version import with_previous_split

CONFIG: dict[str, Any] = {
    "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "encoder"}},
    "data": {
        "class_path": "lightning_hpo.data.CriteriaDataModule",
        "init_args": {"posts": "posts.csv", "annotations": "annotations.csv"},
    },
}


@pytest.fixture
def saved() -> dict[str, Any]:
    """A config as version 0.1.0 saved it."""
    config = resolve(CONFIG, {})
    del config["data"]["init_args"]["split_rule"]
    return config


def _rule(config: Any) -> Any:
    return flags(config)["data.split_rule"]


def test_written_config_has_the_new_rule_and_keeps_it() -> None:
    config = resolve(CONFIG, {})
    assert _rule(config) == _rule(resolve(config, {})) == "stratified"
    assert _rule(resolve(CONFIG, {"data.split_rule": "hash"})) == "hash"


def test_saved_config_of_the_previous_version_has_its_rule(saved: dict[str, Any], tmp_path: Path) -> None:
    assert _rule(resolve(saved, {})) == "hash"
    assert "split_rule" not in saved["data"]["init_args"]
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(saved), encoding="utf-8")
    for arguments in (["--config", str(path)], [f"--config={path}"]):
        assert _rule(AgentCLI(arguments, instantiate=False).values) == "hash"
        assert (
            _rule(AgentCLI([*arguments, "--data.split_rule", "stratified"], instantiate=False).values) == "stratified"
        )


def test_config_of_this_version_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(CONFIG), encoding="utf-8")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    arguments = ["fit", "--config", str(path), "--config", "missing.yaml", f"--config={broken}", "--data.seed", "1"]
    assert with_previous_split(arguments) == arguments
    assert with_previous_split(read_yaml(path.read_text())) == CONFIG
    foreign = {"data": {"class_path": "my.Data", "init_args": {"posts": "posts.csv", "seed": 3}}}
    assert with_previous_split(foreign) == foreign
