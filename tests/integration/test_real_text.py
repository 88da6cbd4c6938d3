"""The script that makes the table of scores: its configs, and its table."""

from pathlib import Path

import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.search.space import SearchSpace
from scripts.real_text import _STUDIES, _setting, config_of, main, table
from tests.tiny import write_tiny_encoder


@pytest.mark.parametrize("name", list(_STUDIES))
def test_configs_are_valid_and_their_spaces_hold_them(name: str, tmp_path: Path) -> None:
    DemoCorpus(20, 17).write(tmp_path)
    encoder = write_tiny_encoder(tmp_path / "encoder")
    setting, studies = _setting(["--corpus", str(tmp_path), "--encoder", encoder, "--epochs", "3", "--lr", "0.001"])
    assert studies == list(_STUDIES)
    config = config_of(name, setting)
    values = AgentCLI({key: each for key, each in config.items() if key != "search_space"}, instantiate=False).values
    assert values["trainer"]["max_epochs"] == 3
    assert values["model"]["init_args"]["name"] == encoder
    assert values["data"]["init_args"]["posts"] == str(tmp_path / "posts.csv")
    assert values["model"]["init_args"].get("form", "pairs") == ("one_pass" if name == "criteria-one-pass" else "pairs")
    assert SearchSpace(config["search_space"], values).defaults_outside() == []


def test_table_has_a_row_for_each_study() -> None:
    scores = {
        **dict.fromkeys(("constant", "simple", "default", "best", "test_simple"), 0.5),
        "best_fixed": None,
        "refit": {"mean": 0.61, "low": 0.55, "high": 0.67},
        "soup": 0.625,
        "test": {"value": 0.6},
        "seconds_a_trial": 1234.5,
        "tokens_an_epoch": 131072,
    }
    head, rule, row = table({"evidence": scores}).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row == (
        "| evidence | .5000 | .5000 | .5000 | .5000 | - | .6100 (.5500 to .6700) | .6250 | .6000 (- to -) | .5000 "
        "| 1,234 | 131,072 |"
    )


def test_step_that_fails_ends_the_script_with_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = ["--corpus", str(tmp_path / "missing"), "--encoder", write_tiny_encoder(tmp_path / "encoder")]
    with pytest.raises(SystemExit) as caught:
        main([*given, "--output", str(tmp_path / "out"), "--studies", "evidence", "--max_length", "24"])
    assert caught.value.code == 2
    shown = capfd.readouterr().err
    assert "error: --data.posts: " in shown
    assert shown.splitlines()[-1].startswith("stopped at: lightning-hpo tune --config ")
