"""Each parameter of the shipped search spaces, changed alone in a real training, has its effect and no other."""

import contextlib
import copy
import csv
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_hpo.agents import calibration
from lightning_hpo.agents.losses import Loss
from lightning_hpo.agents.network.heads import CriteriaHead
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import with_flags
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import label
from lightning_hpo.search.space import SearchSpace
from tests.project_sandbox import ROOT, ProjectSandbox

AGENTS = ("criteria", "evidence", "joint")
# What the joint agent does with its own code; all else is that of the other agents.
OF_JOINT = ("model.evidence_weight", "model.head", "model.decoding", "model.threshold", "model.loss", "data")
# One encoder of each family in the search spaces.
FAMILIES = (
    "roberta-base",
    "microsoft/deberta-v3-base",
    "jhu-clsp/ettin-encoder-150m",
    "google/electra-base-discriminator",
)
BATCHES = 6
OF_LAYERS = ("model.freeze_layers", "model.reinit_layers")

# Aspects of a training that a parameter can affect. For each: the aspects that the parameter must not change.
UNCHANGED = {
    "encoder": set(),
    "network": {"batches"},
    "batches": {"network"},
    "first_loss": {"network", "batches", "rates"},
    "rates": {"network", "batches", "first_loss"},
    "weights": {"network", "batches", "first_loss"},
    "answers": {"network", "batches", "first_loss", "rates", "weights"},
}
ASPECTS = {
    "model.name": "encoder",
    "model.form": "encoder",
    "model.dropout": "network",
    "model.attention_dropout": "network",
    "model.gradient_checkpointing": "network",
    "model.freeze_layers": "network",
    "model.reinit_layers": "network",
    "model.head": "network",
    "model.evidence_weight": "first_loss",
    "model.loss": "first_loss",
    "model.schedule": "rates",
    "model.optim.lr": "rates",
    "model.optim.layer_decay": "rates",
    "model.optim": "weights",
    "model.decoding": "answers",
    "model.threshold": "answers",
    "data": "batches",
    "aug": "batches",
    "trainer.accumulate_grad_batches": "weights",
    "trainer.gradient_clip_val": "weights",
}


@dataclass
class Aspects:
    """Aspects of a training, one in each field."""

    network: Any = None
    batches: list[Any] = field(default_factory=list)
    first_loss: float | None = None
    rates: list[Any] = field(default_factory=list)
    weights: Any = None
    answers: Any = None

    def differences(self, other: "Aspects") -> set[str]:
        return {each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)}


class RecordingCallback(Callback):
    """Records the aspects of a training."""

    def __init__(self) -> None:
        self.seen = Aspects()

    def on_fit_start(self, trainer: Trainer, agent: LightningModule) -> None:
        self.seen.network = _network(agent)

    def on_train_batch_start(self, trainer: Trainer, agent: LightningModule, batch: Any, index: int) -> None:
        self.seen.batches.append(_digest(batch))

    def on_train_batch_end(
        self, trainer: Trainer, agent: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if self.seen.first_loss is None:
            held = min(trainer.accumulate_grad_batches, BATCHES)
            self.seen.first_loss = round(outputs["loss"].item() * held, 5)
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
    """Return the outputs for a fixed input in train mode, the trainable parameters, and whether it checkpoints."""
    ids = torch.arange(5, 25).reshape(2, 10)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if agent.form == "one_pass":
        inputs |= {"criterion_ids": ids[:, :4], "criterion_mask": torch.ones_like(ids[:, :4])}
        inputs |= {"row_windows": torch.arange(2), "row_criteria": torch.arange(2)}
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
    """Return the answers of the agent to random logits that depend on their shape only."""
    generator = torch.Generator().manual_seed(0)
    found = []
    # Indexed by the first character of a token, so that the windows of a post agree.
    by_place = 4 * torch.randn(20_000, 2, generator=generator)
    agent.logits = lambda batch: _with_rival(by_place[batch["offsets"][..., 0].clamp(min=0)], generator)
    spans = agent.logits
    if agent.agent == "criteria":
        agent.logits = lambda batch: torch.randn(len(batch["pair_index"]), 2, generator=generator)
    if agent.agent == "joint":
        agent.logits = lambda batch: torch.cat(
            (torch.randn(len(batch["pair_index"]), 1, 2, generator=generator), spans(batch)), dim=1
        )
    for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
        found += agent.predict_step(batch)
    return found


def _with_rival(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make "no evidence" slightly better or worse than the best span, so that the null policies differ."""
    logits[:, 0] = logits[:, 1:].amax(dim=1) + 7 * torch.rand(len(logits), 2, generator=generator) - 3.5
    return logits


class AgentSandbox:
    """The shipped config and search space of an agent, with tiny encoders."""

    def __init__(self, agent: str, place: ProjectSandbox) -> None:
        self.place = place
        given = yaml.safe_load((ROOT / f"configs/{agent}.yaml").read_text(encoding="utf-8"))
        data = given["data"]["init_args"]
        # Enough answers that some change.
        data["val_fraction"] = 0.5
        data["split_rule"] = "hash"  # which answers change depends on the posts
        data["annotations"] = str(place.folder / data["annotations"])
        data["posts"] = str(_with_long_posts(place.folder / data["posts"]))
        given["model"]["init_args"]["name"] = place.encoder("roberta-base")
        given["trainer"] |= {"max_epochs": 1, "limit_train_batches": BATCHES, "limit_val_batches": 4, "callbacks": None}
        self.config = AgentCLI(given, instantiate=False).values
        space = shipped_space(agent)
        space["model.optim.name"]["choices"].remove("adamw_8bit")
        space["model.name"]["choices"] = [place.encoder(name) for name in FAMILIES]
        self.space = SearchSpace(space, self.config)
        self._seen: dict[str, Aspects] = {}

    def points(self, flag: str) -> list[dict[str, Any]]:
        """Return points that differ in one flag and in the flags that depend on it. Its own conditions hold."""
        # The last value of conditional flags: cosine_with_restarts with one cycle is equal to cosine.
        first = {name: label(one.extremes[-1 if one.when else 0]) for name, one in self.space.dimensions.items()}
        # With the highest ratio, the tiny model gives the same answers as with a calibrated threshold, by chance.
        # A training with the greatest width takes seconds.
        usual = {"model.decoding.null_ratio": 0.3, "model.head.hidden": 256}
        first |= {name: value for name, value in usual.items() if name in first}
        first |= self._wanted(flag)
        values = self.space.dimensions[flag].within(first).extremes
        trials = [optuna.trial.FixedTrial({**first, flag: value}) for value in dict.fromkeys(map(label, values))]
        return [self.space.suggest(trial) for trial in trials]

    def _wanted(self, flag: str) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for other, value in self.space.dimensions[flag].when.items():
            choices = self.space.dimensions[other].choices
            held = [each for each in (value if isinstance(value, list) else [value]) if not choices or each in choices]
            wanted |= {**self._wanted(other), other: held[-1]}
        return wanted

    def copy(self) -> "AgentSandbox":
        """Return a copy without results."""
        sandbox = copy.copy(self)
        sandbox._seen = {}
        return sandbox

    def seen(self, point: Mapping[str, Any]) -> Aspects:
        key = repr(sorted(point.items(), key=lambda item: item[0]))
        if key not in self._seen:
            self._seen[key] = self.train(point)
        return self._seen[key]

    def train(self, point: Mapping[str, Any]) -> Aspects:
        recording = RecordingCallback()
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        options = {**quiet, "accelerator": "cpu", "callbacks": [recording], "default_root_dir": str(self.place.folder)}
        with contextlib.redirect_stderr(io.StringIO()):
            cli = AgentCLI(with_flags(self.config, point), trainer_kwargs=options)
            cli.trainer.fit(cli.model, cli.datamodule)
        return recording.seen


def _with_long_posts(posts: Path) -> Path:
    """Make every other post longer than the longest window."""
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


def shipped_space(agent: str, which: str = "full_") -> dict[str, Any]:
    text = (ROOT / f"configs/{agent}_{which}search_space.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["search_space"]  # type: ignore[no-any-return]


def _aspect_of(flag: str) -> str:
    prefixes = [flag.rsplit(".", cut)[0] for cut in range(flag.count(".") + 1)]
    return next(ASPECTS[prefix] for prefix in prefixes if prefix in ASPECTS)


def dead(sandbox: AgentSandbox, flag: str) -> str:
    """Return how a parameter violates its effect, or an empty string."""
    aspect = _aspect_of(flag)
    seen = [sandbox.seen(point) for point in sandbox.points(flag)]
    for index, one in enumerate(seen):
        for other in seen[:index]:
            differences = one.differences(other)
            if aspect not in differences and (aspect != "encoder" or not differences):
                return f"{flag} does not change {aspect}"
            if differences & UNCHANGED[aspect]:
                return f"{flag} changes {sorted(differences & UNCHANGED[aspect])}"
    return ""


@pytest.fixture(scope="module", autouse=True)
def _few_positives_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_LEAST_POSITIVES", 1)  # two batches have few positive pairs of a criterion
        yield


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AgentSandbox]:
    place = ProjectSandbox(tmp_path_factory.mktemp("parameters"), layers=2)
    return {agent: AgentSandbox(agent, place) for agent in AGENTS}


@pytest.fixture(scope="module")
def deep_sandboxes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AgentSandbox]:
    """As many layers as the search spaces freeze or re-initialize."""
    place = ProjectSandbox(tmp_path_factory.mktemp("layers"), layers=6)
    return {agent: AgentSandbox(agent, place) for agent in AGENTS}


@pytest.mark.parametrize(
    ("agent", "flag"),
    [
        (agent, flag)
        for agent in AGENTS
        for flag in shipped_space(agent)
        if flag not in OF_LAYERS and (agent != "joint" or flag.startswith(OF_JOINT))
    ],
)
def test_parameter_changes_its_aspect_only(sandboxes: dict[str, AgentSandbox], agent: str, flag: str) -> None:
    assert dead(sandboxes[agent], flag) == ""


@pytest.mark.parametrize("flag", OF_LAYERS)
@pytest.mark.parametrize("agent", ["criteria", "evidence"])
def test_numbers_of_layers_change_the_network_only(
    deep_sandboxes: dict[str, AgentSandbox], agent: str, flag: str
) -> None:
    assert dead(deep_sandboxes[agent], flag) == ""


@pytest.mark.parametrize("agent", AGENTS)
def test_training_is_reproducible(sandboxes: dict[str, AgentSandbox], agent: str) -> None:
    (point, *_) = sandboxes[agent].points("aug.p_apply")
    assert sandboxes[agent].train(point) == sandboxes[agent].train(point)


@pytest.mark.parametrize("agent", AGENTS)
def test_small_search_space_is_a_subset_of_the_full_one(agent: str) -> None:
    small, full = shipped_space(agent, ""), shipped_space(agent)
    assert set(small) < set(full)
    assert len(small) <= 12


@pytest.mark.parametrize("agent", AGENTS)
def test_optimizer_that_needs_a_gpu_is_refused_without_one(
    sandboxes: dict[str, AgentSandbox], agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    space = shipped_space(agent)
    space["model.name"]["choices"] = [sandboxes[agent].place.encoder(name) for name in FAMILIES]
    with pytest.raises(InputError) as caught:
        SearchSpace(space, sandboxes[agent].config)
    (problem,) = caught.value.problems
    assert "got adamw_8bit, which needs an NVIDIA GPU" in problem


@pytest.mark.parametrize(
    ("flag", "group", "lost"),
    [
        ("model.head.hidden", CriteriaHead, {"hidden": 256}),
        ("model.loss.gamma", Loss, {"gamma": 2.0}),
        ("model.schedule.power", Schedule, {"power": 2.0}),
        ("model.optim.beta2", Optim, {"beta2": 0.999}),
        ("aug.operations", Augmentation, {"operations": 1}),
    ],
)
def test_parameter_without_effect_is_detected(
    sandboxes: dict[str, AgentSandbox], flag: str, group: Any, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = group.__init__

    @functools.wraps(known)
    def cut(self: Any, **given: Any) -> None:
        known(self, **{**given, **lost})

    monkeypatch.setattr(group, "__init__", cut)
    assert dead(sandboxes["criteria"].copy(), flag) == f"{flag} does not change {_aspect_of(flag)}"
