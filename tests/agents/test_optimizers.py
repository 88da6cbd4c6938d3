from typing import Any, Literal

import pytest
import torch
import transformers

from lightning_hpo.agents.encoder import freeze_layers, load_encoder
from lightning_hpo.agents.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network import TextNetwork
from lightning_hpo.agents.optimizers import Optim, Schedule, make_optimizer, make_schedule


@pytest.fixture
def network(encoder_folder: str) -> TextNetwork:
    encoder = load_encoder(encoder_folder)
    return TextNetwork(encoder, TokenHead(EvidenceHead(), encoder.config.hidden_size))


def _setting(network: TextNetwork, optim: Optim, key: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimizer(network, optim).param_groups
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


def test_every_setting_reaches_adamw(network: TextNetwork) -> None:
    optim = Optim(lr=0.5, weight_decay=0.25, beta1=0.8, beta2=0.95, eps=1e-7)
    optimizer = make_optimizer(network, optim)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25, 0.0}
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.95), 1e-7)}


def test_biases_and_norms_do_not_decay(network: TextNetwork) -> None:
    decays = _setting(network, Optim(weight_decay=0.25), "weight_decay")
    assert decays == {name: 0.25 if parameter.ndim > 1 else 0.0 for name, parameter in network.named_parameters()}


def test_layer_decay_slows_what_is_lower(network: TextNetwork) -> None:
    rates = _setting(network, Optim(lr=1.0, layer_decay=0.5), "lr")
    assert rates["head.layers.1.weight"] == 1.0
    assert rates["encoder.encoder.layer.1.output.dense.weight"] == 0.5
    assert rates["encoder.encoder.layer.0.output.dense.bias"] == 0.25
    assert rates["encoder.embeddings.word_embeddings.weight"] == 0.125


def test_frozen_weights_are_left_out(network: TextNetwork) -> None:
    freeze_layers(network.encoder, 2)
    assert set(_setting(network, Optim(), "lr")) == {"head.layers.1.weight", "head.layers.1.bias"}


def _rates(schedule: Schedule, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_schedule(optimizer, schedule, lambda: steps)
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_schedules_are_those_of_transformers(name: Literal["linear", "cosine"], warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    make: Any = {
        "linear": transformers.get_linear_schedule_with_warmup,
        "cosine": transformers.get_cosine_schedule_with_warmup,
    }[name]
    theirs = make(optimizer, int(warmup * 20), 20).lr_lambdas[0]
    assert _rates(Schedule(name, warmup), 20) == pytest.approx([theirs(step) for step in range(20)])


def test_constant_stays_where_it_is_after_the_warm_up() -> None:
    assert _rates(Schedule("constant", 0.2), 10) == [0.0, 0.5] + [1.0] * 8


def test_the_number_of_steps_is_asked_for_only_after_the_first() -> None:
    def not_yet() -> int:
        raise AssertionError("the loader is not there yet")

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    assert make_schedule(optimizer, Schedule(), not_yet).get_last_lr() == [0.0]


def test_a_rate_never_falls_below_nothing() -> None:
    assert Schedule("linear", 0.0).factor(25, 20) == 0.0
    assert Schedule("cosine", 0.0).factor(25, 20) == 0.0
