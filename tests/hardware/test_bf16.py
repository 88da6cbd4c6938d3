from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_hpo.hardware.bf16 import attend, computes_bf16, quicken_attention, round_weights


class _Layer(nn.Module):
    """An embedding with a tied output layer, and attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.Linear(8, 8)
        self.output = nn.Linear(8, 20, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        values = self.layer(self.embedding(ids)).unsqueeze(1)
        attended = mask.bool()[:, None, None, :]
        result: Tensor = self.output(functional.scaled_dot_product_attention(values, values, values, attended)[:, 0])
        return result


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture
def network(inputs: tuple[Tensor, Tensor]) -> Any:
    torch.manual_seed(3)
    return torch.export.export(_Layer(), inputs).module()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attend_matches_torch(masked: bool, scaling: float | None) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    mask = torch.rand(2, 1, 5, 5) < 0.7
    mask[..., 0] = True
    chosen = mask if masked else None
    expected = functional.scaled_dot_product_attention(query, key, value, chosen, scale=scaling)
    torch.testing.assert_close(attend(query, key, value, chosen, scaling), expected)


def test_attend_keeps_its_type_under_autocast() -> None:
    query = torch.randn(1, 1, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(query, query, query, None).dtype == torch.bfloat16


def test_float32_network_is_unchanged(network: Any, inputs: tuple[Tensor, Tensor]) -> None:
    before = network(*inputs)
    quicken_attention(network)
    assert torch.equal(network(*inputs), before)


def test_rounded_weights_match_autocast(network: Any, inputs: tuple[Tensor, Tensor]) -> None:
    quicken_attention(network)
    with torch.autocast("cpu", torch.bfloat16):
        before = network(*inputs)
        round_weights(network)
        assert torch.equal(network(*inputs), before)
    kinds = {name: parameter.dtype for name, parameter in network.named_parameters()}
    # Autocast does not round embeddings.
    assert kinds["embedding.weight"] == torch.float32
    assert kinds["layer.weight"] == kinds["layer.bias"] == torch.bfloat16


def test_bf16_attention_is_close_to_float32(network: Any, inputs: tuple[Tensor, Tensor]) -> None:
    expected = network(*inputs)
    quicken_attention(network)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = network(*inputs)
    assert not torch.equal(narrow, expected)
    torch.testing.assert_close(narrow.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": True}, {"avx512_f": True, "avx512_bf16": False}])
def test_bf16_is_detected_from_the_capabilities(known: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert computes_bf16() == known.get("avx512_bf16", False)
