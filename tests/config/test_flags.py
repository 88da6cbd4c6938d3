from typing import Any

import pytest
from yaml import YAMLError

from lightning_hpo.config.flags import as_yaml, class_of, flags, read_yaml, with_flags
from tests.foreign import ForeignModule


def test_flags_are_named_as_on_the_command_line() -> None:
    config = {
        "model": {"class_path": "a.B", "init_args": {"name": "x", "optim": {"lr": 0.1}, "loss": None}},
        "aug": {"methods": ["swap"], "extra": {}},
    }
    assert flags(config) == {
        "model": "a.B",
        "model.name": "x",
        "model.optim.lr": 0.1,
        "model.loss": None,
        "aug.methods": ["swap"],
        "aug.extra": {},
    }


def test_yaml_keeps_the_order_of_keys_and_non_ascii_letters() -> None:
    assert as_yaml({"b": 1, "a": "é"}) == "b: 1\na: é\n"
    assert list(read_yaml("b: 1\na: é\n").items()) == [("b", 1), ("a", "é")]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000, "[" * 9_999])
def test_config_of_many_levels_is_an_error(text: str) -> None:
    """libyaml overflows its stack."""
    with pytest.raises(YAMLError):
        read_yaml(text)


def test_class_of_imports_the_class_of_a_section(foreign_config: dict[str, Any]) -> None:
    assert class_of(foreign_config["model"]) is ForeignModule


def test_with_flags_changes_a_copy_and_adds_missing_sections() -> None:
    config = {"model": {"class_path": "a.B", "init_args": {"optim": None}}}
    changed = with_flags(config, {"model.optim.lr": 0.1, "trainer.max_epochs": 3})
    assert changed == {
        "model": {"class_path": "a.B", "init_args": {"optim": {"lr": 0.1}}},
        "trainer": {"max_epochs": 3},
    }
    assert config == {"model": {"class_path": "a.B", "init_args": {"optim": None}}}
