"""With the real agents on the demo's corpus, since what a training holds in all its corners is what matters."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.callbacks.random_state import RandomState
from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint, find_checkpoint
from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from lightning_hpo.data import Augmentation, CriteriaDataModule, EvidenceDataModule
from lightning_hpo.data.demo_corpus import DemoCorpus
from tests.callbacks.conftest import Terminator
from tests.hub import write_hub

pytestmark = [
    pytest.mark.usefixtures("handler_as_before"),
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers",
        "ignore:.*resuming from a checkpoint that ended before the epoch ended",
        "ignore:.*multi-threaded, use of fork.*",
    ),
]

MODULES: dict[Any, Any] = {CriteriaAgent: CriteriaDataModule, EvidenceAgent: EvidenceDataModule}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """Tensors this small only wait for each other on more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and an encoder for it with dropout everywhere."""
    folder = tmp_path_factory.mktemp("demo")
    corpus = DemoCorpus(24, 17)
    corpus.write(folder)
    write_hub(folder / "hub", corpus.texts())
    (snapshot,) = (folder / "hub/models--roberta-base/snapshots").iterdir()
    (folder / "encoder").symlink_to(snapshot)
    return folder


class _Metrics(Callback):
    """Notes the metrics of each epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        self.seen[trainer.current_epoch] = {name: float(value) for name, value in trainer.callback_metrics.items()}


class _Training:
    """Trainings of one agent, in one folder; each as a fresh process would do it."""

    def __init__(self, kind: Any, demo: Path, folder: Path, make_trainer: Callable[..., Trainer]) -> None:
        self.kind, self.demo, self.folder, self.make_trainer = kind, demo, folder, make_trainer

    def run(
        self, *, seed: int, stop_at: tuple[str, int, int] | None = None, workers: int = 0, **options: Any
    ) -> tuple[dict[str, Tensor], dict[int, dict[str, float]], list[tuple[str, int, int]]]:
        """Train from where the folder's checkpoint stands; give weights, metrics and batches."""
        for generator in (random.seed, np.random.seed, torch.manual_seed):
            generator(seed)
        agent = self.kind(
            str(self.demo / "encoder"),
            dropout=0.3,
            attention_dropout=0.2,
            optim={"lr": 1e-3},
            schedule={"name": "cosine", "warmup": 0.3},
        )
        data = MODULES[self.kind](
            **{name: str(self.demo / file) for name, file in _FILES.items()},
            max_length=64,
            stride=16,
            batch_size=8 if self.kind is EvidenceAgent else 32,
            num_workers=workers,
            aug=Augmentation(enabled=True, p_apply=0.5),
        )
        stop, metrics, batches = StopRequest(), _Metrics(), Terminator(*(stop_at or ("nowhere", 0, 0)))
        stop.listen()
        resume = ResumeCheckpoint(self.folder, stop)
        trainer = self.make_trainer(
            callbacks=[RandomState(), stop, metrics, batches, resume],
            max_epochs=3,
            enable_checkpointing=True,
            gradient_clip_val=1.0,
            **options,
        )
        checkpoint, _ = find_checkpoint(self.folder)
        if stop_at is None:
            trainer.fit(agent, data, ckpt_path=checkpoint, weights_only=True)
        else:
            with pytest.raises(StopRequestedError):
                trainer.fit(agent, data, ckpt_path=checkpoint, weights_only=True)
        return {**agent.state_dict()}, metrics.seen, batches.seen


_FILES = {
    "posts": "posts.csv",
    "annotations": "annotations.csv",
    "criteria": "criteria.yaml",
    "tokenizer": "encoder",
}


@pytest.mark.parametrize("kind", [CriteriaAgent, EvidenceAgent])
@pytest.mark.parametrize(
    ("workers", "options"), [(0, {}), (2, {"accumulate_grad_batches": 2}), (0, {"max_steps": 1000})]
)
def test_a_training_that_was_stopped_amid_an_epoch_equals_one_that_ran_through(
    kind: Any, workers: int, options: dict[str, Any], demo: Path, tmp_path: Path, quiet_trainer: Callable[..., Trainer]
) -> None:
    through = _Training(kind, demo, tmp_path / "through", quiet_trainer)
    weights, metrics, batches = through.run(seed=3, workers=workers, **options)
    print(len(batches), batches, metrics)
    parts = _Training(kind, demo, tmp_path / "parts", quiet_trainer)
    *_, first = parts.run(seed=3, workers=workers, stop_at=("train", 1, 1), **options)
    *_, second = parts.run(seed=4, workers=workers, stop_at=("train", 1, 3), **options)
    own_weights, own_metrics, third = parts.run(seed=5, workers=workers, **options)
    print(first, second, third)
    assert first + second + third == batches
    assert {**own_metrics} == {epoch: metrics[epoch] for epoch in (1, 2)}
    assert own_weights.keys() == weights.keys()
    assert all(torch.equal(own_weights[name], weights[name]) for name in weights)
