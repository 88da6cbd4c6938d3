"""Every key of the shipped search spaces, changed alone in a real training, changes what it names, and only that."""

import contextlib
import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_hpo.config import AgentCLI, resolve
from lightning_hpo.search_space import SearchSpace
from tests.workplace import ROOT, Workplace

AGENTS = ("criteria", "evidence")
BATCHES = 6

# What a parameter names is one of these, and what stands before it in a training is left as it was.
LEFT_ALONE = {
    "encoder": set(),
    "network": {"batches"},
    "batches": {"network"},
    "first_loss": {"network", "batches", "rates"},
    "rates": {"network", "batches", "first_loss"},
    "weights": {"network", "batches", "first_loss"},
    "answers": {"network", "batches", "first_loss", "rates", "weights"},
}
NAMES = {
    "model.name": "encoder",
    "model.dropout": "network",
    "model.head": "network",
    "model.loss": "first_loss",
    "model.schedule": "rates",
    "model.optim.lr": "rates",
    "model.optim.layer_decay": "rates",
    "model.optim": "weights",
    "model.decoding": "answers",
    "data": "batches",
    "aug": "batches",
}


@dataclass
class Seen:
    """What a training shows: each field is one thing that a parameter may name."""

    network: Any = None
    batches: list[Any] = field(default_factory=list)
    first_loss: float | None = None
    rates: list[Any] = field(default_factory=list)
    weights: Any = None
    answers: Any = None

    def differences(self, other: "Seen") -> set[str]:
        return {each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)}


class Witness(Callback):
    """Writes down what a training shows."""

    def __init__(self) -> None:
        self.seen = Seen()

    def on_fit_start(self, trainer: Trainer, agent: LightningModule) -> None:
        self.seen.network = _network(agent)

    def on_train_batch_start(self, trainer: Trainer, agent: LightningModule, batch: Any, index: int) -> None:
        self.seen.batches.append(_digest(batch))

    def on_train_batch_end(
        self, trainer: Trainer, agent: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if self.seen.first_loss is None:
            self.seen.first_loss = float(outputs["loss"])
        self.seen.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_fit_end(self, trainer: Trainer, agent: LightningModule) -> None:
        self.seen.weights = _digest(agent.network.state_dict())  # type: ignore[union-attr]
        self.seen.answers = _answers(trainer, agent)


def _digest(tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return digest.hexdigest()


def _network(agent: Any) -> Any:
    """What the network gives for a fixed input in training, which of it is trained, and how it is run."""
    ids = torch.arange(5, 25).reshape(2, 10)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        agent.network.train()
        given = [agent.logits(inputs) for _ in range(3)]
    return (
        [each.tolist() for each in given],
        [name for name, parameter in agent.network.named_parameters() if parameter.requires_grad],
        agent.network.encoder.is_activation_checkpointing,
    )


def _answers(trainer: Trainer, agent: Any) -> Any:
    """What the agent reads out of logits that depend on nothing but their shape."""
    generator = torch.Generator().manual_seed(0)
    found = []
    agent.logits = lambda batch: 4 * torch.randn(*batch["input_ids"].shape, 2, generator=generator)
    if agent.agent == "criteria":
        agent.logits = lambda batch: torch.randn(len(batch["input_ids"]), 2, generator=generator)
    for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
        found += agent.predict_step(batch)
    return found


class Bench:
    """The shipped config of an agent over tiny encoders, and its search space."""

    def __init__(self, agent: str, place: Workplace) -> None:
        self.place = place
        given = yaml.safe_load((ROOT / f"configs/{agent}.yaml").read_text(encoding="utf-8"))
        data = given["data"]["init_args"]
        data["annotations"] = str(place.folder / data["annotations"])
        data["posts"] = str(_with_long_posts(place.folder / data["posts"]))
        given["model"]["init_args"]["name"] = place.encoder("roberta-base")
        given["trainer"] |= {"max_epochs": 1, "limit_train_batches": BATCHES, "limit_val_batches": 2, "callbacks": None}
        self.config = AgentCLI(given, instantiate=False).values
        self.space = SearchSpace(_read_space(agent, place), self.config)
        self._seen: dict[str, Seen] = {}

    def point(self, flag: str, value: Any) -> dict[str, Any]:
        """The point of the space at which all that `flag` waits for holds, with everything else at its first value."""
        first = {name: dimension.extremes[0] for name, dimension in self.space.dimensions.items()}
        return self.space.suggest(optuna.trial.FixedTrial({**first, **self._wanted(flag), flag: value}))  # type: ignore[arg-type]

    def _wanted(self, flag: str) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for other, value in self.space.dimensions[flag].when.items():
            wanted |= {**self._wanted(other), other: value[0] if isinstance(value, list) else value}
        return wanted

    def seen(self, point: Mapping[str, Any]) -> Seen:
        key = repr(sorted(point.items(), key=lambda item: item[0]))
        if key not in self._seen:
            self._seen[key] = self.train(point)
        return self._seen[key]

    def train(self, point: Mapping[str, Any]) -> Seen:
        witness = Witness()
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        options = {**quiet, "accelerator": "cpu", "callbacks": [witness], "default_root_dir": str(self.place.folder)}
        with contextlib.redirect_stderr(io.StringIO()):
            cli = AgentCLI(resolve(self.config, point), trainer_kwargs=options)
            cli.trainer.fit(cli.model, cli.datamodule)
        return witness.seen


def _with_long_posts(posts: Path) -> Path:
    """Every other post goes on for longer than the longest window."""
    with posts.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::2]:
        row["text"] += " The train was late and the tea was cold." * 80
    long = posts.with_name("long_posts.csv")
    with long.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return long


def _shipped_space(agent: str) -> dict[str, Any]:
    text = (ROOT / f"configs/{agent}_search_space.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["search_space"]  # type: ignore[no-any-return]


def _read_space(agent: str, place: Workplace) -> dict[str, Any]:
    space = _shipped_space(agent)
    names = space["model.name"]
    names["choices"] = [place.encoder(name) for name in names["choices"]]
    return space


def _keys(agent: str) -> list[str]:
    return list(
        yaml.safe_load((ROOT / f"configs/{agent}_search_space.yaml").read_text(encoding="utf-8"))["search_space"]
    )


def _what_it_names(flag: str) -> str:
    prefixes = [flag.rsplit(".", cut)[0] for cut in range(flag.count(".") + 1)]
    return next(NAMES[prefix] for prefix in prefixes if prefix in NAMES)


def dead(bench: Bench, flag: str) -> str:
    """Says what is wrong with a parameter, or nothing."""
    named = _what_it_names(flag)
    values = bench.space.dimensions[flag].extremes
    seen = [bench.seen(bench.point(flag, value)) for value in values]
    for index, one in enumerate(seen):
        for other in seen[:index]:
            differences = one.differences(other)
            if named not in differences and (named != "encoder" or not differences):
                return f"{flag} does not change {named}"
            if differences & LEFT_ALONE[named]:
                return f"{flag} changes {sorted(differences & LEFT_ALONE[named])}"
    return ""


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    place = Workplace(tmp_path_factory.mktemp("parameters"))
    return {agent: Bench(agent, place) for agent in AGENTS}


@pytest.mark.parametrize(("agent", "flag"), [(agent, flag) for agent in AGENTS for flag in _keys(agent)])
def test_a_searched_parameter_changes_what_it_names(benches: dict[str, Bench], agent: str, flag: str) -> None:
    assert dead(benches[agent], flag) == ""


@pytest.mark.parametrize("agent", AGENTS)
def test_the_same_point_shows_the_same_again(benches: dict[str, Bench], agent: str) -> None:
    point = benches[agent].point("model.optim.lr", 1e-4)
    assert benches[agent].train(point) == benches[agent].train(point)
