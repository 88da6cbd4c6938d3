from typing import Any

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lightning_hpo.agents import CriteriaAgent
from lightning_hpo.agents.network.dropout import Dropout, attention, quicken_dropout
from lightning_hpo.agents.network.encoder import load_encoder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.95])
def test_a_share_of_p_is_dropped_and_the_rest_is_scaled_up(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(301, 1001, dtype=dtype, requires_grad=True)
    dropped = Dropout(p)(values)
    dropped.sum().backward()
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean() == pytest.approx(p, abs=0.005)
    assert dropped[dropped != 0].unique().float().tolist() == pytest.approx([1 / (1 - p)], rel=0.005)
    # Dropped values have no gradient. The gradient of the others is their scale.
    torch.testing.assert_close(values.grad, dropped.detach())


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (5, 7, 3)])
def test_any_shape_is_supported(shape: tuple[int, ...]) -> None:
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).float().view(-1, 4)
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 0.02
    assert dropped.mean(dim=0).tolist() == pytest.approx([0.5] * 4, abs=0.01)


def test_same_seed_drops_the_same_values() -> None:
    def drawn() -> torch.Tensor:
        torch.manual_seed(3)
        dropped: torch.Tensor = Dropout(0.3)(torch.ones(99))
        return dropped

    torch.testing.assert_close(drawn(), drawn())


@pytest.mark.parametrize("module", [Dropout(0.0), Dropout(0.5).train(False)])
def test_no_random_numbers_are_drawn_without_training_or_probability(module: Dropout) -> None:
    before = torch.get_rng_state()
    values = torch.ones(10)
    torch.testing.assert_close(module(values), values)
    torch.testing.assert_close(torch.get_rng_state(), before)


def _heads(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    query, key, value = (torch.randn(shape) for _ in range(3))
    mask = torch.ones(shape[0], 1, shape[2], shape[2], dtype=torch.bool)
    mask[0, :, :, -3:] = False
    return query, key, value, mask


@pytest.mark.parametrize("masked", [True, False])
def test_attention_matches_torch_without_dropout(masked: bool) -> None:
    query, key, value, mask = _heads(2, 3, 8, 4)
    chosen = mask if masked else None
    module = nn.Module()
    expected, _ = sdpa_attention_forward(module, query, key, value, chosen, is_causal=False)
    plain, weights = attention(module, query, key, value, chosen, is_causal=False)
    # This runs the dropout code, but with a probability so low that it drops nothing.
    torch.manual_seed(0)
    quick, _ = attention(module, query, key, value, chosen, dropout=1e-9, is_causal=False)
    assert weights is None
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(quick, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_a_causal_model_reads_no_later_token(dtype: torch.dtype) -> None:
    query, key, value, _ = (each.to(dtype) for each in _heads(2, 3, 8, 4))
    expected, _ = sdpa_attention_forward(nn.Module(), query, key, value, None, is_causal=True)
    module = nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    torch.manual_seed(0)
    for given in ({}, {"is_causal": True}):
        found, _ = attention(module, query, key, value, None, dropout=1e-9, **given)
        torch.testing.assert_close(found, expected, atol=0.02 if dtype == torch.bfloat16 else 1e-5, rtol=0)


def test_attention_with_dropout_matches_on_average() -> None:
    query, key, value, mask = _heads(2, 1, 8, 4)
    expected, _ = attention(nn.Module(), query, key, value, mask, is_causal=False)
    many = [attention(nn.Module(), query, key, value, mask, dropout=0.3, is_causal=False)[0] for _ in range(2000)]
    assert (torch.stack(many).mean(dim=0) - expected).abs().max() < 0.1
    assert torch.stack(many).std(dim=0).min() > 0


def test_every_dropout_of_an_encoder_is_replaced(encoder_folder: str) -> None:
    encoder: Any = load_encoder(encoder_folder, dropout=0.2, attention_dropout=0.1)
    quicken_dropout(encoder)
    kinds = {type(module) for module in encoder.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {Dropout}
    assert encoder.config._attn_implementation == "sdpa_with_quick_dropout"
    assert {module.p for module in encoder.modules() if isinstance(module, Dropout)} == {0.2, 0.1}


def test_encoder_of_an_agent_matches_the_plain_encoder(encoder_folder: str) -> None:
    agent = CriteriaAgent(encoder_folder)
    agent.train(False)
    ids = torch.randint(8, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    alone: Any = load_encoder(encoder_folder).train(False)
    agents: Any = agent.network.encoder
    torch.testing.assert_close(
        agents(input_ids=ids, attention_mask=mask).last_hidden_state,
        alone(input_ids=ids, attention_mask=mask).last_hidden_state,
    )
