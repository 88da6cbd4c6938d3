"""A network is moved to torch's `meta` device, which refuses to mix with another: no GPU is needed to see a mistake."""

from pathlib import Path

import pytest
import torch

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.exceptions import InputError
from lightning_hpo.serving.flavor import save_model
from lightning_hpo.serving.prediction_device import VARIABLE, move_network, prediction_device
from lightning_hpo.serving.text_model import load_network
from tests.tiny import tiny_data, write_tiny_encoder

pytestmark = [
    # Raised inside torch.export.
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

META = torch.device("meta")


@pytest.mark.parametrize("kind", ["criteria", "one_pass", "evidence"])
def test_moved_network_has_nothing_left_on_the_cpu(kind: str, tmp_path: Path) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    agent: TextAgent = EvidenceAgent(encoder)
    if kind != "evidence":
        agent = CriteriaAgent(encoder, form="one_pass" if kind == "one_pass" else "pairs")
    save_model(str(tmp_path / "model"), module=agent, datamodule=tiny_data(encoder))
    network = load_network(tmp_path / "model")
    assert isinstance(agent.network, TextNetwork)
    examples = agent.network.example_inputs(types=True)
    inputs = [example.to(META) for example in examples]
    network_that_torch_moves = load_network(tmp_path / "model").to(META)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        network_that_torch_moves(*inputs)
    move_network(network, META)
    logits = network(*inputs)
    assert logits.device == META
    assert logits.shape == agent.network(*examples).shape


def test_device_is_that_of_the_parameter_then_of_mlflow_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert prediction_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(VARIABLE, "cuda:1")
    assert prediction_device() == torch.device("cuda:1")
    assert prediction_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "gpu", "meta", "0x"])
def test_device_that_is_not_there_is_named_with_its_source(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError) as caught:
        prediction_device(name, "parameter device")
    assert caught.value.problems == [
        f"parameter device: got {name}, but this machine has no such device; use cpu or cuda"
    ]
    monkeypatch.setenv(VARIABLE, name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=rf"^{VARIABLE}: got {name}, but this machine has no such device; use cpu$"):
        prediction_device()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [CriteriaAgent, EvidenceAgent])
def test_answers_on_a_gpu_are_those_of_the_cpu(kind: type[CriteriaAgent | EvidenceAgent], tmp_path: Path) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    agent = kind(encoder).eval()
    save_model(str(tmp_path / "model"), module=agent, datamodule=tiny_data(encoder))
    network = load_network(tmp_path / "model")
    assert isinstance(agent.network, TextNetwork)
    inputs = agent.network.example_inputs(types=True)
    expected = network(*inputs)
    move_network(network, torch.device("cuda"))
    torch.testing.assert_close(network(*[each.cuda() for each in inputs]).cpu(), expected, atol=1e-4, rtol=1e-4)
