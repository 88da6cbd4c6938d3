from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_hpo.agents.network.encoder import load_encoder
from lightning_hpo.agents.network.ensemble import Ensemble
from lightning_hpo.agents.network.heads import CriteriaHead, EvidenceHead, TokenHead, WindowHead
from lightning_hpo.agents.network.text_network import TextNetwork
from tests.tiny import write_tiny_encoder

IDS = torch.tensor([[2, 4, 5, 3, 6, 7, 3], [2, 8, 9, 3, 4, 3, 0]])


@pytest.fixture
def networks(tmp_path: Path, request: pytest.FixtureRequest) -> list[nn.Module]:
    name = write_tiny_encoder(tmp_path)
    torch.manual_seed(1)
    heads = [
        WindowHead(CriteriaHead(), 16) if request.param == "criteria" else TokenHead(EvidenceHead(), 16)
        for _ in range(3)
    ]
    return [TextNetwork(load_encoder(name), head).eval() for head in heads]


@pytest.mark.parametrize("networks", ["criteria", "evidence"], indirect=True)
def test_logits_are_the_mean_of_those_of_the_members(networks: list[nn.Module]) -> None:
    inputs: list[Tensor] = [IDS, (IDS > 0).long(), torch.zeros_like(IDS)]
    with torch.no_grad():
        found = Ensemble(networks).eval()(*inputs)
        each = torch.stack([network(*inputs) for network in networks])
    torch.testing.assert_close(found, each.mean(dim=0))
    assert not torch.allclose(found, each[0])
    if found.ndim == 2:
        odds = each[..., 1] - each[..., 0]
        torch.testing.assert_close(found[:, 1] - found[:, 0], odds.mean(dim=0))
    else:  # log probabilities of the tokens, up to a constant
        logs = each.log_softmax(dim=2).mean(dim=0)
        torch.testing.assert_close(found.log_softmax(dim=1), logs.log_softmax(dim=1))


@pytest.mark.parametrize("networks", ["criteria"], indirect=True)
def test_mean_of_16_bit_logits_is_computed_in_float32(networks: list[nn.Module]) -> None:
    inputs = [IDS, (IDS > 0).long()]
    with torch.no_grad():
        halves = [network.bfloat16() for network in networks]
        each = torch.stack([network(*inputs) for network in halves])
        found = Ensemble(halves)(*inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, each.float().mean(dim=0))


@pytest.mark.parametrize("networks", ["criteria", "evidence"], indirect=True)
def test_exported_ensemble_runs_under_autocast(networks: list[nn.Module]) -> None:
    inputs = (IDS, (IDS > 0).long())
    ensemble = Ensemble(networks).eval()
    exported = torch.export.export(ensemble, inputs).module()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = exported(*inputs), ensemble(*inputs)
    assert found.dtype == wanted.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
