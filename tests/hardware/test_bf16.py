from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel

from lightning_hpo.agents.network.dropout import quicken_dropout
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.hardware.bf16 import allow_bf16, attend, computes_bf16, round_weights
from tests.agents.network.test_encoder_checks import CAUSAL
from tests.agents.network.test_text_network import FAMILIES


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
    allow_bf16(network)
    assert torch.equal(network(*inputs), before)


def test_rounded_weights_match_autocast(network: Any, inputs: tuple[Tensor, Tensor]) -> None:
    allow_bf16(network)
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
    allow_bf16(network)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = network(*inputs)
    assert not torch.equal(narrow, expected)
    torch.testing.assert_close(narrow.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": True}, {"avx512_f": True, "avx512_bf16": False}])
def test_bf16_is_detected_from_the_capabilities(known: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert computes_bf16() == known.get("avx512_bf16", False)


# raised by torch.export
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("family", [*FAMILIES, *CAUSAL])
def test_every_exported_family_runs_in_bf16(family: str) -> None:
    torch.manual_seed(0)
    with quiet_transformers():
        encoder = AutoModel.from_config({**FAMILIES, **CAUSAL}[family]())  # type: ignore[no-untyped-call]
    network = TextNetwork(encoder, TokenHead(EvidenceHead(), encoder.config.hidden_size)).eval()
    quicken_dropout(network)
    ids = torch.randint(5, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    dynamic = torch.export.Dim.AUTO
    example, shapes = (torch.ones(2, 16).long(), torch.ones(2, 16).long()), [{0: dynamic, 1: dynamic}] * 2
    exported: Any = torch.export.export(network, example, dynamic_shapes=shapes).module()
    allow_bf16(exported)
    torch.testing.assert_close(exported(ids, mask), network(ids, mask))
    round_weights(exported)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = (each(ids, mask)[mask.bool()].float() for each in (exported, network))
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
