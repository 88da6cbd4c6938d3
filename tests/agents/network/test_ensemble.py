from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_hpo.agents.network.encoder import load_encoder
from lightning_hpo.agents.network.ensemble import Ensemble
from lightning_hpo.agents.network.heads import CriteriaHead, CriterionAttention, EvidenceHead, TokenHead, WindowHead
from lightning_hpo.agents.network.text_network import OnePassNetwork, TextNetwork
from tests.tiny import write_tiny_encoder

KINDS = ["criteria", "one_pass", "evidence"]
IDS = torch.tensor([[2, 4, 5, 3, 6, 7, 3], [2, 8, 9, 3, 4, 3, 0]])
CRITERIA = torch.tensor([[2, 5, 6, 3], [2, 9, 3, 0], [2, 7, 3, 0]])


@pytest.fixture
def networks(tmp_path: Path, request: pytest.FixtureRequest) -> list[TextNetwork]:
    name = write_tiny_encoder(tmp_path)
    torch.manual_seed(1)
    return [_network(request.param, name).eval() for _ in range(3)]


def _network(kind: str, encoder: str) -> TextNetwork:
    head: nn.Module = TokenHead(EvidenceHead(), 16)
    if kind != "evidence":
        head = (CriterionAttention if kind == "one_pass" else WindowHead)(CriteriaHead(), 16)
    return (OnePassNetwork if kind == "one_pass" else TextNetwork)(load_encoder(encoder), head)


def _inputs(networks: list[TextNetwork], *, types: bool = False) -> tuple[Tensor, ...]:
    shared = isinstance(networks[0], OnePassNetwork)
    texts = [IDS, CRITERIA] if shared else [IDS]
    inputs = [each for ids in texts for each in (ids, (ids > 0).long())]
    return (*inputs, *(torch.zeros_like(ids) for ids in texts if types))


@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("networks", KINDS, indirect=True)
def test_logits_are_the_mean_of_those_of_the_members(networks: list[TextNetwork], types: bool) -> None:
    inputs = _inputs(networks, types=types)
    with torch.no_grad():
        found = Ensemble(networks).eval()(*inputs)
        each = torch.stack([network(*inputs) for network in networks])
    torch.testing.assert_close(found, each.mean(dim=0))
    assert not torch.allclose(found, each[0])
    if isinstance(networks[0].head, TokenHead):  # log probabilities of the tokens, up to a constant
        logs = each.log_softmax(dim=2).mean(dim=0)
        torch.testing.assert_close(found.log_softmax(dim=1), logs.log_softmax(dim=1))
    else:
        odds = each[..., 1] - each[..., 0]
        torch.testing.assert_close(found[..., 1] - found[..., 0], odds.mean(dim=0))


@pytest.mark.parametrize("networks", ["criteria"], indirect=True)
def test_mean_of_16_bit_logits_is_computed_in_float32(networks: list[TextNetwork]) -> None:
    inputs = _inputs(networks)
    with torch.no_grad():
        halves = [network.bfloat16() for network in networks]
        each = torch.stack([network(*inputs) for network in halves])
        found = Ensemble(halves)(*inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, each.float().mean(dim=0))


@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("networks", KINDS, indirect=True)
def test_exported_ensemble_runs_under_autocast(networks: list[TextNetwork], types: bool) -> None:
    ensemble = Ensemble(networks).eval()
    examples = ensemble.example_inputs(types=types)
    shapes = tuple(dict.fromkeys(range(2), torch.export.Dim.AUTO) for _ in examples)
    exported = torch.export.export(ensemble, examples, dynamic_shapes=shapes).module()
    inputs = _inputs(networks, types=types)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = exported(*inputs), ensemble(*inputs)
    assert found.dtype == wanted.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
