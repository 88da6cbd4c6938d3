"""The null policy `calibrated` in training, in checkpoints and after resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.agents import EvidenceAgent

Batches = list[dict[str, Any]]
Loader = Callable[[Batches], Any]
MakeTrainer = Callable[..., Trainer]

pytestmark = [
    # raised by torch when Lightning moves a batch
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    # one process is enough for batches in memory
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def _agent(encoder: str, policy: str, threshold: float = 0.0) -> EvidenceAgent:
    torch.manual_seed(0)
    decoding: Any = {"null_policy": policy, "null_threshold": threshold}
    optim: Any = {"lr": 5e-3}
    return EvidenceAgent(encoder, optim=optim, decoding=decoding)


class _Thresholds(Callback):
    """Records the threshold at each validation batch. A new threshold is visible one epoch later."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_batch_start(self, _: Trainer, pl_module: LightningModule, *__: object) -> None:
        assert isinstance(pl_module, EvidenceAgent)
        self.seen.append(pl_module.decoding.threshold)


@pytest.fixture
def fitted(
    encoder_folder: str, training_batches: Batches, eval_batches: Batches, loader: Loader, trainer: MakeTrainer
) -> tuple[EvidenceAgent, Trainer]:
    agent, fitting = _agent(encoder_folder, "calibrated"), trainer(max_epochs=1)
    fitting.fit(agent, loader(training_batches[:4]), loader(eval_batches))
    return agent, fitting


def test_calibrated_threshold_has_the_best_metric_of_the_epoch(
    fitted: tuple[EvidenceAgent, Trainer],
    encoder_folder: str,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
) -> None:
    agent, fitting = fitted
    found = fitting.callback_metrics
    assert found["val_null_threshold"] == agent.decoding.threshold != 0
    scores = {}
    for threshold in (0.0, agent.decoding.threshold, *torch.linspace(-4, 4, 17).tolist()):
        fixed = _agent(encoder_folder, "threshold", threshold)
        fixed.network.load_state_dict(agent.network.state_dict())
        (logged,) = trainer().validate(fixed, loader(eval_batches), verbose=False)
        scores[threshold] = logged["val_metric"]
    best = scores[agent.decoding.threshold]
    assert max(scores.values()) == best > scores[0.0]
    assert found["val_metric"] < best  # no post is scored with a threshold that was fitted to it


def test_threshold_is_kept_in_checkpoints_and_outside_training(
    fitted: tuple[EvidenceAgent, Trainer], eval_batches: Batches, loader: Loader, trainer: MakeTrainer, tmp_path: Path
) -> None:
    agent, fitting = fitted
    for name, weights_only in (("whole", False), ("weights", True)):
        fitting.save_checkpoint(tmp_path / name, weights_only=weights_only)
        again = EvidenceAgent.load_from_checkpoint(tmp_path / name, weights_only=True)
        assert again.decoding == agent.decoding
        (scores,) = trainer().validate(again, loader(eval_batches), verbose=False)
        assert scores["val_metric"] == fitting.callback_metrics["val_metric"]
        (tested,) = trainer().test(again, loader(eval_batches), verbose=False)
        assert tested["test_metric"] > scores["val_metric"]  # the same posts, with the threshold fitted to them
        trainer().validate(again, loader(eval_batches[:1]), verbose=False)
        rows = trainer().predict(again, loader(eval_batches))
        assert rows == trainer().predict(agent, loader(eval_batches))
        assert again.decoding == agent.decoding


def test_threshold_is_calibrated_each_epoch_but_not_in_the_sanity_check(
    fitted: tuple[EvidenceAgent, Trainer],
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    agent, fitting = fitted
    fitting.save_checkpoint(tmp_path / "whole.ckpt")
    before, thresholds = agent.decoding.threshold, _Thresholds()
    resumed = trainer(max_epochs=3, num_sanity_val_steps=1, callbacks=[thresholds])
    again = EvidenceAgent.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    loaders = loader(training_batches[:4]), loader(eval_batches[:1])
    resumed.fit(again, *loaders, ckpt_path=tmp_path / "whole.ckpt", weights_only=True)
    sanity, second, third = thresholds.seen
    assert sanity == second == before
    assert len({second, third, again.decoding.threshold}) == 3


def test_other_policies_save_no_threshold(encoder_folder: str) -> None:
    assert "null_threshold" in _agent(encoder_folder, "calibrated").state_dict()
    for policy in ("none", "threshold", "ratio"):
        assert "null_threshold" not in _agent(encoder_folder, policy).state_dict()
