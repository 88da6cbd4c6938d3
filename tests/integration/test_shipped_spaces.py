"""The configs and search spaces in `configs/` fit each other, and work with each encoder that they name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from huggingface_hub import constants

from lightning_hpo.config.agent_cli import AgentCLI, resolve
from lightning_hpo.config.flags import read_yaml
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.serving.flavor import save_model
from tests.hub import ENCODERS, write_hub

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_AGENTS = ("criteria", "evidence", "joint")


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = read_yaml((_CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return read


def _encoders(agent: str) -> list[str]:
    """Return the encoders that the files of an agent name, the default first."""
    found = {_read(agent)["model"]["init_args"]["name"]: None}
    for path in _CONFIGS.rglob(f"{agent}_*.yaml"):
        space = _read(str(path.relative_to(_CONFIGS).with_suffix("")))["search_space"]
        found |= dict.fromkeys(space.get("model.name", {}).get("choices", []))
    return list(found)


def _one_of_each_family(agent: str) -> list[str]:
    """Return encoders of an agent with different files: in the hub of the tests, base and large ones have the same."""
    return list({ENCODERS[name][0]: name for name in reversed(_encoders(agent))}.values())


@pytest.mark.parametrize(
    ("config", "space"),
    [
        ("criteria", "criteria_search_space"),
        ("criteria", "criteria_full_search_space"),
        ("criteria", "stages/criteria_1_baseline"),
        ("criteria", "stages/criteria_2_augmentation"),
        ("criteria", "stages/criteria_3_joint"),
        ("evidence", "evidence_search_space"),
        ("evidence", "evidence_full_search_space"),
        ("joint", "joint_search_space"),
        ("joint", "joint_full_search_space"),
        ("demo_criteria", "demo_criteria"),
        ("demo_evidence", "demo_evidence"),
        ("demo_joint", "demo_joint"),
    ],
)
def test_first_trial_is_the_default_config(config: str, space: str) -> None:
    read = {name: _read(name) for name in (config, space)}
    entries = read[space]["search_space"]
    for entry in entries.values():  # needs an NVIDIA GPU
        if "adamw_8bit" in entry.get("choices", ()):
            entry["choices"].remove("adamw_8bit")
    base = resolve({key: value for key, value in read[config].items() if key != "search_space"}, {})
    searched = SearchSpace(entries, base)
    assert searched.defaults_outside() == []
    assert len(searched.dimensions) == len(entries)


def test_all_agents_are_trained_alike() -> None:
    criteria, *others = (_read(agent) for agent in _AGENTS)
    for other in others:
        assert other["trainer"] == criteria["trainer"]
        for name in ("optim", "schedule"):
            assert other["model"]["init_args"][name] == criteria["model"]["init_args"][name]


def test_hub_of_the_tests_has_the_encoders_of_the_configs_only() -> None:
    assert {name for agent in _AGENTS for name in _encoders(agent)} == set(ENCODERS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a corpus, in a process that finds the encoders in its cache."""
    folder = tmp_path_factory.mktemp("shipped")
    demo = DemoCorpus(40, 17)
    demo.write(folder)
    write_hub(folder / "hub", list(demo.texts()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield folder


# raised by torch.export
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("agent", "name"), [(agent, name) for agent in _AGENTS for name in _one_of_each_family(agent)])
def test_every_encoder_is_loaded_trained_and_served(agent: str, name: str, corpus: Path, tmp_path: Path) -> None:
    config = _read(agent)
    config["model"]["init_args"]["name"] = name
    files = {key: str(corpus / f"{key}.csv") for key in ("posts", "annotations")}
    config["data"]["init_args"] |= {**files, "batch_size": 4}
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    limits = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "callbacks": None}
    config["trainer"] |= {**limits, **quiet, "accelerator": "cpu", "precision": "32-true"}
    cli = AgentCLI(config, trainer_kwargs={"default_root_dir": str(tmp_path), "enable_model_summary": False})
    cli.trainer.fit(cli.model, cli.datamodule)
    assert torch.isfinite(cli.trainer.callback_metrics["train_loss"])
    save_model(str(tmp_path / "model"), module=cli.model, datamodule=cli.datamodule)
    rows = pd.DataFrame({"criterion": ["SLEEP_ISSUES"], "post": ["It rained. I cannot sleep at night."]})
    [answer] = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(rows).to_dict("records")
    assert answer["problem"] == ""
