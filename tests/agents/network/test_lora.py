import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from lightning_hpo.agents.network.encoder import load_encoder, quiet_transformers
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network.lora import Lora, add_adapters, merge_adapters
from lightning_hpo.agents.network.text_network import TextNetwork
from tests.agents.network.test_encoder_checks import CAUSAL
from tests.agents.network.test_text_network import FAMILIES

LORA = Lora(r=4, alpha=8, dropout=0.25)
IDS = torch.arange(8, 24).reshape(2, 8)


def _network(encoder_folder: str, lora: Lora) -> TextNetwork:
    torch.manual_seed(0)
    encoder = load_encoder(encoder_folder)
    add_adapters(encoder, lora)
    return TextNetwork(encoder, TokenHead(EvidenceHead(), encoder.config.hidden_size)).eval()


def _logits(network: nn.Module) -> torch.Tensor:
    logits: torch.Tensor = network(IDS, torch.ones_like(IDS))
    return logits.detach()


def test_untrained_adapters_keep_the_output(encoder_folder: str) -> None:
    network = _network(encoder_folder, LORA)
    plain = _network(encoder_folder, Lora())
    network.head.load_state_dict(plain.head.state_dict())
    torch.testing.assert_close(_logits(network), _logits(plain))


def test_only_adapters_and_head_are_trained(encoder_folder: str) -> None:
    trained = [name for name, p in _network(encoder_folder, LORA).named_parameters() if p.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    # Two matrices for each of six linear layers of two transformer layers, and the head's weight and bias.
    assert len(trained) == 2 * 6 * 2 + 2


def test_every_setting_reaches_the_adapters(encoder_folder: str) -> None:
    query = _network(encoder_folder, LORA).encoder.get_submodule("encoder.layer.0.attention.self.query")
    assert (query.r["default"], query.scaling["default"]) == (4, 2.0)  # type: ignore[index]
    assert query.lora_dropout["default"].p == 0.25  # type: ignore[index,union-attr]


def test_merged_network_matches_the_adapted_network(encoder_folder: str) -> None:
    network = _network(encoder_folder, LORA)
    before = _logits(network)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    adapted = _logits(network)
    assert (adapted - before).abs().max() > 1e-3
    merged = merge_adapters(network, LORA)
    torch.testing.assert_close(_logits(merged), adapted)
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(_logits(network), adapted)
    assert any("lora" in name for name in network.state_dict())


@pytest.mark.parametrize("family", [*FAMILIES, *CAUSAL])
def test_every_family_supports_adapters_and_merging(family: str, tmp_path: Path) -> None:
    with quiet_transformers():
        config = {**FAMILIES, **CAUSAL}[family]()
        model: Any = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        model.save_pretrained(tmp_path)
    network = _network(str(tmp_path), LORA)
    plain = set(_network(str(tmp_path), Lora()).state_dict())
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    network(IDS, torch.ones_like(IDS)).square().sum().backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if "lora_" in name)
    merged = merge_adapters(network, LORA)
    torch.testing.assert_close(_logits(merged), _logits(network), atol=1e-5, rtol=1e-4)
    assert set(merged.state_dict()) == plain


def test_merging_without_adapters_returns_the_network_itself(encoder_folder: str) -> None:
    network = _network(encoder_folder, Lora())
    assert merge_adapters(network, Lora()) is network


def test_missing_peft_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert Lora().problems() == []
    assert Lora(r=8).problems() == ["--model.lora.r: got 8, which needs peft; pip install 'lightning-text-hpo[lora]'"]
