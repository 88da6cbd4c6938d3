"""The search spaces in `configs/` hold the configs that they belong to."""

from pathlib import Path

import pytest

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import read_yaml
from lightning_hpo.search.space import SearchSpace

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("config", "space"),
    [
        ("criteria", "criteria_search_space"),
        ("criteria", "criteria_full_search_space"),
        ("criteria", "stages/criteria_1_baseline"),
        ("evidence", "evidence_search_space"),
        ("evidence", "evidence_full_search_space"),
        ("demo_criteria", "demo_criteria"),
        ("demo_evidence", "demo_evidence"),
    ],
)
def test_first_trial_is_the_default_config(config: str, space: str) -> None:
    read = {name: read_yaml((_CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) for name in (config, space)}
    entries = read[space]["search_space"]
    for entry in entries.values():  # needs an NVIDIA GPU
        if "adamw_8bit" in entry.get("choices", ()):
            entry["choices"].remove("adamw_8bit")
    base = resolve({key: value for key, value in read[config].items() if key != "search_space"}, {})
    searched = SearchSpace(entries, base)
    assert searched.defaults_outside() == []
    assert len(searched.dimensions) == len(entries)
