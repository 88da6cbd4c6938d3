import importlib.util
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lion
from transformers.optimization import Adafactor

from lightning_hpo.agents.network.encoder import freeze_layers, load_encoder
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.optim.optimizers import Optim, OptimName, make_optimizer
from lightning_hpo.exceptions import InputError


@pytest.fixture
def network(encoder_folder: str) -> TextNetwork:
    encoder = load_encoder(encoder_folder)
    torch.manual_seed(0)
    return TextNetwork(encoder, TokenHead(EvidenceHead(), encoder.config.hidden_size))


def _setting(network: TextNetwork, optim: Optim, key: str) -> dict[str, Any]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimizer(network, optim).param_groups
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


def test_every_setting_reaches_adamw(network: TextNetwork) -> None:
    optim = Optim(lr=0.5, weight_decay=0.25, beta1=0.8, beta2=0.95, eps=1e-7)
    optimizer = make_optimizer(network, optim)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25, 0.0}
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.95), 1e-7)}


def test_every_setting_reaches_lion(network: TextNetwork) -> None:
    optimizer = make_optimizer(network, Optim(name="lion", lr=0.5, weight_decay=0.25, beta1=0.8, beta2=0.95))
    assert isinstance(optimizer, Lion)
    assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {(0.5, (0.8, 0.95))}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25, 0.0}


def test_adafactor_uses_the_given_learning_rate(network: TextNetwork) -> None:
    optimizer = make_optimizer(network, Optim(name="adafactor", lr=0.5, weight_decay=0.25))
    assert isinstance(optimizer, Adafactor)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25, 0.0}
    assert not any(group["relative_step"] or group["scale_parameter"] for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor"])
def test_each_optimizer_reduces_a_loss(network: TextNetwork, name: OptimName) -> None:
    optimizer = make_optimizer(network.eval(), Optim(name=name, lr=1e-3))
    ids = torch.arange(8, 24).reshape(2, 8)
    losses = []
    for _ in range(5):
        loss = network(ids, torch.ones_like(ids)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_adamw_8bit_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (problem,) = Optim(name="adamw_8bit").missing()
    assert problem.startswith("--model.optim.name: got adamw_8bit, which needs an NVIDIA GPU; use adafactor")


@pytest.mark.parametrize(("name", "package"), [("adamw_8bit", "bitsandbytes"), ("lion", "pytorch_optimizer")])
def test_missing_package_of_an_optimizer_is_reported(
    name: OptimName, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (problem,) = Optim(name=name).missing()
    assert problem == f"--model.optim.name: got {name}, which needs {package}; pip install 'lightning-text-hpo[{name}]'"


def test_adamw_8bit_is_refused_if_the_model_is_not_on_a_gpu(
    network: TextNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(InputError, match=r"--model.optim.name: .* the model is on cpu; use --trainer.accelerator=gpu"):
        make_optimizer(network, Optim(name="adamw_8bit"))


def test_biases_and_norms_have_no_weight_decay(network: TextNetwork) -> None:
    decays = _setting(network, Optim(weight_decay=0.25), "weight_decay")
    assert decays == {name: 0.25 if parameter.ndim > 1 else 0.0 for name, parameter in network.named_parameters()}


def test_layer_decay_lowers_the_rate_of_lower_layers(network: TextNetwork) -> None:
    rates = _setting(network, Optim(lr=1.0, layer_decay=0.5), "lr")
    assert rates["head.layers.1.weight"] == 1.0
    assert rates["encoder.encoder.layer.1.output.dense.weight"] == 0.5
    assert rates["encoder.encoder.layer.0.output.dense.bias"] == 0.25
    assert rates["encoder.embeddings.word_embeddings.weight"] == 0.125


def test_frozen_weights_are_not_optimized(network: TextNetwork) -> None:
    freeze_layers(network.encoder, 2)
    assert set(_setting(network, Optim(), "lr")) == {"head.layers.1.weight", "head.layers.1.bias"}
