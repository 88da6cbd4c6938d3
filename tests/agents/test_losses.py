import pytest
import torch
from torch.nn import functional

from lightning_hpo.agents.losses import Balance, Loss, class_weights, row_loss
from lightning_hpo.data.labels import IGNORED

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 3, 1, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_matches_torch(smoothing: float) -> None:
    expected = functional.cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(row_loss(LOGITS, TARGETS, Loss(label_smoothing=smoothing)), expected)


def test_focal_is_weighted_cross_entropy() -> None:
    entropy = functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    expected = (1 - torch.exp(-entropy)) ** 3 * entropy
    torch.testing.assert_close(row_loss(LOGITS, TARGETS, Loss(name="focal", gamma=3)), expected)


def test_alpha_weights_positives_against_negatives() -> None:
    even = row_loss(LOGITS, TARGETS, Loss(name="focal"))
    weighed = row_loss(LOGITS, TARGETS, Loss(name="focal", alpha=0.9))
    torch.testing.assert_close(weighed / even, torch.where(TARGETS == 0, 0.1, 0.9))


def test_weighted_is_inverse_to_the_number_of_windows() -> None:
    torch.testing.assert_close(class_weights("weighted", (300, 100)), torch.tensor([2 / 3, 2.0]))


def test_effective_number_is_inverse_to_the_effective_number() -> None:
    # Cui et al. 2019, equation 2: (1 - beta^n) / (1 - beta).
    effective = torch.tensor([(1 - 0.999**900) / 0.001, (1 - 0.999**100) / 0.001])
    weights = class_weights("effective_number", (900, 100))
    torch.testing.assert_close(weights[1] / weights[0], effective[0] / effective[1])


@pytest.mark.parametrize("balance", ["none", "weighted", "effective_number"])
@pytest.mark.parametrize("counts", [(1, 1), (7, 3), (100_000, 20), (0, 5)])
def test_the_mean_weight_is_one(balance: Balance, counts: tuple[int, int]) -> None:
    windows = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
    assert float((class_weights(balance, counts) * windows).sum() / windows.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.99, 1.0, 2.0])
def test_focal_gradient_is_finite_for_a_certain_answer(gamma: float) -> None:
    logits = torch.tensor([[60.0, 0.0], [0.3, 0.2]], requires_grad=True)
    row_loss(logits, torch.tensor([0, 1]), Loss(name="focal", gamma=gamma)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().max() < 1e-6 < logits.grad[1].abs().max()


def test_focal_without_gamma_is_cross_entropy() -> None:
    torch.testing.assert_close(
        row_loss(LOGITS, TARGETS, Loss(name="focal", gamma=0)), row_loss(LOGITS, TARGETS, Loss())
    )


@pytest.mark.parametrize("loss", [Loss(), Loss(label_smoothing=0.1), Loss(name="focal", label_smoothing=0.1)])
def test_masked_classes_are_ignored(loss: Loss) -> None:
    padded = torch.cat((LOGITS, torch.full((6, 3), 50.0)), dim=1)
    mask = torch.arange(7).expand(6, 7) < 4
    torch.testing.assert_close(row_loss(padded, TARGETS, loss, mask), row_loss(LOGITS, TARGETS, loss))


def test_ignored_rows_have_no_loss_and_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    targets = TARGETS.clone()
    targets[2] = IGNORED
    losses = row_loss(logits, targets, Loss(label_smoothing=0.1))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses[2] == 0
    assert logits.grad is not None
    assert logits.grad[2].abs().sum() == 0
    assert torch.isfinite(logits.grad).all()


def test_half_precision_is_computed_in_float32() -> None:
    assert row_loss(LOGITS.bfloat16(), TARGETS, Loss()).dtype == torch.float32
