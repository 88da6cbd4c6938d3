import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from lightning_hpo.agents import CriteriaAgent
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.network.quantization import dequantize_layer, quantize_problems

_NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None,
    reason="needs an NVIDIA GPU and bitsandbytes",
)


def _machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool, package: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if package else None)


def test_nothing_is_needed_without_quantization(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=False, package=False)
    assert quantize_problems("none", has_adapters=False) == []


@pytest.mark.parametrize(
    ("adapters", "gpu", "package", "line"),
    [
        (False, True, True, "but 4-bit weights cannot be trained; use adapters, such as --model.lora.r 16"),
        (True, True, False, "which needs bitsandbytes; pip install 'lightning-text-hpo[quantize]'"),
        (True, False, True, "which needs an NVIDIA GPU; use none"),
    ],
)
def test_each_missing_thing_is_one_line(
    adapters: bool, gpu: bool, package: bool, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, gpu=gpu, package=package)
    [problem] = quantize_problems("4bit", has_adapters=adapters)
    assert problem.startswith("--model.quantize: got 4bit, ")
    assert problem.endswith(line)


def test_a_machine_with_everything_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=True, package=True)
    assert quantize_problems("4bit", has_adapters=True) == []


def test_other_layers_stay_as_they_are() -> None:
    layer = nn.Linear(2, 3)
    assert dequantize_layer(layer) is layer


@_NEEDS_GPU
def test_four_bit_agent_is_trained_saved_loaded_and_exported_on_a_gpu(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    torch.manual_seed(0)
    with quiet_transformers():
        transformers.AutoModel.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]

    def make() -> Any:
        lora: Any = {"r": 4, "dropout": 0.0}
        head: Any = {"pooling": "last", "dropout": 0.0}
        return CriteriaAgent(str(tmp_path), lora=lora, quantize="4bit", head=head).cuda()

    ids = torch.randint(1, 50, (4, 9), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    mask = torch.ones_like(ids)
    agent = make()
    plain = CriteriaAgent(str(tmp_path), head={"pooling": "last"})  # type: ignore[arg-type]
    layers = agent.network.encoder.layers[0].mlp.up_proj, plain.network.encoder.layers[0].mlp.up_proj  # type: ignore[union-attr,index]
    assert layers[0].get_base_layer().weight.numel() * 2 == layers[1].weight.numel()
    optimizer = torch.optim.SGD([each for each in agent.parameters() if each.requires_grad], lr=0.01)
    for _ in range(3):
        agent.network(ids, mask).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    agent.eval()
    wanted = agent.network(ids, mask).detach()
    state = agent.state_dict()
    assert not any(name.endswith("base_layer.weight") or "absmax" in name for name in state)
    again = make().eval()
    again.load_state_dict(state)
    torch.testing.assert_close(again.network(ids, mask), wanted)
    merged = again.cpu().served_network
    torch.testing.assert_close(merged(ids.cpu(), mask.cpu()), wanted.cpu(), atol=1e-2, rtol=1e-2)
    again.cuda()
    torch.testing.assert_close(again.network(ids, mask), wanted)
