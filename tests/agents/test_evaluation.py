"""Tests of the evaluation, with both agents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent

Batches = list[dict[str, Any]]
Loader = Callable[[Batches], Any]
MakeTrainer = Callable[..., Trainer]

pytestmark = [
    # raised by torch when Lightning moves a batch
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    # one process is enough for batches in memory
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.fixture(params=[CriteriaAgent, EvidenceAgent])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_test_logs_the_metrics_of_validation(
    kind: Any, encoder_folder: str, eval_batches: Batches, loader: Loader, trainer: MakeTrainer
) -> None:
    agent = kind(encoder_folder)
    (validated,) = trainer().validate(agent, loader(eval_batches), verbose=False)
    (tested,) = trainer().test(agent, loader(eval_batches), verbose=False)
    assert {name.replace("val_", "test_"): value for name, value in validated.items()} == tested


def test_batches_of_the_sanity_check_are_not_counted(kind: Any, encoder_folder: str, eval_batches: Batches) -> None:
    agent = kind(encoder_folder).eval()
    agent.on_validation_epoch_start()
    agent.validation_step(eval_batches[0], 0)
    agent.on_validation_epoch_start()
    agent.validation_step(eval_batches[1], 0)
    alone = agent.val_scores.compute()
    agent.on_validation_epoch_start()
    agent.validation_step(eval_batches[1], 0)
    torch.testing.assert_close(agent.val_scores.compute(), alone)


def test_loss_of_a_split_is_the_mean_over_its_windows(kind: Any, encoder_folder: str, eval_batches: Batches) -> None:
    agent = kind(encoder_folder).eval()
    batch = dict(eval_batches[0])
    short = {name: value[:3] for name, value in batch.items()}
    expected = torch.cat([agent.window_losses(agent.logits(part), part)[0] for part in (batch, short)]).mean()
    for part in (batch, short):
        agent.validation_step(part, 0)
    torch.testing.assert_close(agent.val_scores.compute()["loss"], expected)
