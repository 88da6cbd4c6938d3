"""Scores on real text: baselines, default config, study, refit with other seeds, soup, and the test split once.

Each step is a command of `lightning-hpo` that resumes, so this script does, too. It writes `scores.json` and
`scores.md`.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from mlflow import MlflowClient

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.storage.attributes import run_id_of
from scripts.benchmarks.machine import machine

_ROOT = Path(__file__).parents[1]
_STUDIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "criteria-pairs": ("criteria", {"form": "pairs"}),
    "criteria-one-pass": ("criteria", {"form": "one_pass"}),
    "evidence": ("evidence", {}),
    "joint": ("joint", {}),
}
# A window of the one-pass form has an answer for each criterion, so there are fewer windows in an epoch.
_BATCH_SIZES: Mapping[str, tuple[int, ...]] = {"criteria-one-pass": (4, 8), "joint": (4, 8)}
_COLUMNS = {
    "constant": "best constant",
    "simple": "simple baseline",
    "default": "default config",
    "best": "best trial",
    "best_fixed": "its score at .5",
    "refit": "refit, mean and 95 % interval",
    "soup": "soup",
    "test": "test, once",
    "test_simple": "simple baseline, test",
}
_WORDS, _SENTENCE = "TF-IDF + logistic regression", "most similar sentence"
_SIMPLE = (_WORDS, _SENTENCE, f"{_WORDS}, {_SENTENCE}")


@dataclass(frozen=True)
class _Setting:
    """What is measured.

    Args:
        corpus: Folder with posts.csv, annotations.csv and perhaps criteria.yaml.
        encoder: Folder or hub id of the encoder.
        output: Folder of configs, databases, studies and results.
        trials: Trials of each study.
        epochs: Epochs of each trial.
        candidates: Best trials that are refitted.
        seeds: Seeds of each.
        lr: Learning rate of the default config; the search goes from a tenth to four times of it.
        max_length: Tokens in a window, at most.
        workers: Trials at the same time.
    """

    corpus: Path
    encoder: str
    output: Path
    trials: int
    epochs: int
    candidates: int
    seeds: int
    lr: float
    max_length: int
    workers: int

    @property
    def databases(self) -> dict[str, str]:
        """Environment variables of both databases."""
        folder = self.output.resolve()
        return {
            "OPTUNA_STORAGE": f"sqlite:///{folder}/optuna.db",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }


def config_of(name: str, setting: _Setting) -> dict[str, Any]:
    """Return the config of a study: that of its agent in `configs/`, with the encoder, the corpus and fewer epochs."""
    agent, model = _STUDIES[name]
    config = _shipped(f"{agent}.yaml")
    config["model"]["init_args"] |= {"name": setting.encoder, **model}
    config["model"]["init_args"]["optim"]["lr"] = setting.lr
    data = config["data"]["init_args"]
    data |= {"max_length": setting.max_length, "stride": setting.max_length // 4, "aliases": {}}
    data |= {name: str(setting.corpus.resolve() / f"{name}.csv") for name in ("posts", "annotations")}
    criteria = setting.corpus.resolve() / "criteria.yaml"
    if criteria.is_file():
        data["criteria"] = str(criteria)
    config["trainer"]["max_epochs"] = setting.epochs
    space = _shipped(f"{agent}_search_space.yaml")["search_space"]
    del space["model.name"]
    space["model.optim.lr"] = {"low": setting.lr / 10, "high": setting.lr * 4, "log": True}
    if sizes := _BATCH_SIZES.get(name):
        data["batch_size"], space["data.batch_size"] = sizes[0], {"choices": list(sizes)}
    return {**config, "search_space": space}


def run(name: str, setting: _Setting) -> None:
    """Run or resume a study, its refit and its soup."""
    path = setting.output / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config_of(name, setting), sort_keys=False), encoding="utf-8")
    study = {"name": name, "n_trials": setting.trials, "workers": setting.workers, "outdir": setting.output / "studies"}
    _command(setting, "tune", "--config", path, *(f"--study.{key}={value}" for key, value in study.items()))
    seeds = ("--trials", setting.candidates, "--seeds", setting.seeds, "--workers", setting.workers)
    _command(setting, "refit", name, *seeds)
    if "soup" not in _refit_of(name, setting)["models"]:
        _command(setting, "register", "--study", name, "--soup")
        _command(setting, "refit", name, *seeds)  # writes the soup's score to refit.json


def scores_of(name: str, setting: _Setting) -> dict[str, Any]:
    """Return the scores of a study that is complete."""
    study = optuna.load_study(study_name=name, storage=setting.databases["OPTUNA_STORAGE"])
    trials, refit = study.get_trials(deepcopy=False), _refit_of(name, setting)
    winner = next(each for each in refit["candidates"] if each["trial"] == refit["winner"])
    baselines = json.loads(_command(setting, "status", "--study", name, "--json"))["constant_answers"]
    tested = refit["test"]
    return {
        "constant": max(value for key, value in baselines.items() if key not in _SIMPLE),
        "simple": next(value for key, value in baselines.items() if key in _SIMPLE),
        "default": trials[0].value,
        "best": study.best_value,
        "best_fixed": _fixed(study, setting),
        "refit": {key: winner[key] for key in ("mean", "low", "high", "scores")},
        "leads": refit["leads"],
        "soup": refit["models"].get("soup", {}).get("value"),
        "test": {"value": tested["metrics"]["test_metric"], **tested.get("interval", {})},
        "test_leads": tested.get("leads", {}),
        "test_simple": next(value for key, value in tested["constant_answers"].items() if key in _SIMPLE),
        "seconds_a_trial": sum(trial.duration.total_seconds() for trial in trials if trial.duration) / len(trials),
        "tokens_an_epoch": _tokens(name, setting),
    }


def table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scores as a Markdown table."""
    lines = [["`val_metric`", *_COLUMNS.values(), "seconds a trial", "tokens encoded an epoch"]]
    lines.append(["---"] * len(lines[0]))
    for name, own in scores.items():
        cells = [_text(own[key]) for key in _COLUMNS]
        lines.append([name, *cells, f"{own['seconds_a_trial']:,.0f}", f"{own['tokens_an_epoch']:,}"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _shipped(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_ROOT / "configs" / name).read_text(encoding="utf-8"))
    return loaded


def _command(setting: _Setting, *arguments: object) -> str:
    """Run a command of this package, show it, and return what it has printed if that is JSON."""
    words = [sys.executable, "-m", "lightning_hpo", *map(str, arguments)]
    environment = {**os.environ, **setting.databases}
    read = "--json" in arguments
    if not read:
        print(f"== lightning-hpo {' '.join(words[3:])}", flush=True)
    done = subprocess.run(words, env=environment, check=False, stdout=subprocess.PIPE if read else None, text=True)
    if done.returncode:  # the command has printed why
        print(f"stopped at: lightning-hpo {' '.join(words[3:])}; run the same command to resume", file=sys.stderr)
        raise SystemExit(done.returncode)
    return done.stdout or ""


def _refit_of(name: str, setting: _Setting) -> dict[str, Any]:
    path = setting.output / "studies" / f"{name}-refit" / "refit.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _fixed(study: optuna.Study, setting: _Setting) -> float | None:
    """Return the score of the best trial's best epoch at a threshold of .5; None if its threshold is fixed."""
    client, run_id = MlflowClient(setting.databases["MLFLOW_TRACKING_URI"]), run_id_of(study, study.best_trial)
    assert run_id is not None
    history = {
        name: {each.step: each.value for each in client.get_metric_history(run_id, name)}
        for name in ("val_metric", "val_metric_fixed")
    }
    best = max(history["val_metric"], key=lambda step: (history["val_metric"][step], -step))
    return history["val_metric_fixed"].get(best)


def _tokens(name: str, setting: _Setting) -> int:
    """Return how many tokens the encoder reads in a training epoch of the default config, without padding."""
    config = {key: value for key, value in config_of(name, setting).items() if key != "search_space"}
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)  # nothing is trained here
    data = AgentCLI(config, trainer_kwargs={"logger": False, "accelerator": "cpu"}).datamodule
    data.setup("fit")
    masks = ("attention_mask", "criterion_mask")
    return sum(int(batch[mask].sum()) for batch in data.train_dataloader() for mask in masks if mask in batch)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, Mapping):
        return f"{value:.4f}".removeprefix("0")
    low, high = (_text(value.get(key)) for key in ("low", "high"))
    return f"{_text(value.get('mean', value.get('value')))} ({low} to {high})"


def _setting(arguments: Sequence[str]) -> tuple[_Setting, list[str]]:
    parser = argparse.ArgumentParser(prog="scripts/real_text", description=__doc__)
    add = parser.add_argument
    add("--corpus", type=Path, required=True, metavar="DIR", help="posts.csv, annotations.csv, perhaps criteria.yaml")
    add("--encoder", required=True, metavar="DIR", help="folder or hub id of the encoder")
    add("--output", type=Path, default=Path("real_text"), metavar="DIR", help="default: real_text")
    add("--trials", type=int, default=8, help="trials of each study; default: 8")
    add("--epochs", type=int, default=6, help="epochs of each trial; default: 6")
    add("--candidates", type=int, default=2, help="best trials that are refitted; default: 2")
    add("--seeds", type=int, default=5, help="seeds of each; default: 5")
    add("--lr", type=float, default=1e-4, help="learning rate of the default config; default: 1e-4, for small encoders")
    add("--max_length", type=int, default=256, help="tokens in a window, at most; default: 256")
    add("--workers", type=int, default=1, help="trials at the same time; default: 1")
    add("--studies", nargs="+", choices=list(_STUDIES), default=list(_STUDIES), help="default: all")
    given = vars(parser.parse_args(arguments))
    studies = given.pop("studies")
    return _Setting(**given), studies


def main(arguments: Sequence[str]) -> None:
    """Run the studies, and write and print the table."""
    setting, studies = _setting(arguments)
    setting.output.mkdir(parents=True, exist_ok=True)
    for name in studies:
        run(name, setting)
    scores = {name: scores_of(name, setting) for name in studies}
    about: dict[str, Any] = {"corpus": setting.corpus.name, "encoder": Path(setting.encoder).name, "machine": machine()}
    about |= {"trials": setting.trials, "epochs": setting.epochs, "seeds": setting.seeds}
    (setting.output / "scores.json").write_text(json.dumps({**about, "scores": scores}, indent=2), encoding="utf-8")
    (setting.output / "scores.md").write_text(table(scores), encoding="utf-8")
    print(table(scores), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
