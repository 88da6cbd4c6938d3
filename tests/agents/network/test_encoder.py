import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AlbertConfig, AlbertModel, AutoModel, T5Config
from transformers.utils import logging as transformers_logging

from lightning_hpo.agents.network.encoder import (
    checkpoint_gradients,
    encoder_layers,
    freeze_layers,
    load_encoder,
    quiet_transformers,
    reinit_layers,
)
from lightning_hpo.exceptions import InputError
from tests.agents.network.test_text_network import FAMILIES


def test_encoder_is_loaded_in_float32_without_pooler_in_train_mode(encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert all(module.training for module in encoder.modules())


def test_dropout_reaches_the_layers(encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder, dropout=0.31, attention_dropout=0.21)
    assert {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)} == {0.31, 0.21}


def test_loading_prints_nothing(encoder_folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder(encoder_folder)
    assert capfd.readouterr() == ("", "")


def test_quiet_transformers_restores_the_settings() -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert not transformers_logging.is_progress_bar_enabled()
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def _copy(source: str, target: Path, **config: object) -> Path:
    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


def test_missing_weights_are_refused(encoder_folder: str, tmp_path: Path) -> None:
    folder = _copy(encoder_folder, tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"--model.name: got .*, whose weights lack 16 tensors of the encoder"):
        load_encoder(str(folder))


def test_weights_of_another_width_are_refused(encoder_folder: str, tmp_path: Path) -> None:
    folder = _copy(encoder_folder, tmp_path / "wider", hidden_size=64)
    with pytest.raises(InputError, match=r"--model.name: got .*, whose weights cannot be read as tensors"):
        load_encoder(str(folder))


def test_pickled_tensors_give_the_same_encoder(encoder_folder: str, tmp_path: Path) -> None:
    folder = _copy(encoder_folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    wanted, read = load_encoder(encoder_folder).state_dict(), load_encoder(str(folder)).state_dict()
    torch.testing.assert_close(read, wanted, rtol=0, atol=0)


def test_broken_weights_are_refused(encoder_folder: str, tmp_path: Path) -> None:
    folder = _copy(encoder_folder, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(InputError, match=r"got .*, whose weights cannot be read as tensors"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (None, "a folder without config.json"),
        ({"model_type": "nonsense"}, "whose config.json has no model type that transformers knows"),
        (T5Config().to_dict(), "is a t5 model, not an encoder"),
    ],
)
def test_a_folder_without_an_encoder_is_refused(config: dict[str, object] | None, problem: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=problem) as caught:
        load_encoder(str(tmp_path))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "/no/such/folder", "not a name!"])
def test_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^--model.name: got '.*', which is not a folder, and no hub id; give a"):
        load_encoder(name)


def test_freezing_includes_the_embeddings(encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder)
    freeze_layers(encoder, 1)
    frozen = {name.split(".layer.1")[0] for name, p in encoder.named_parameters() if not p.requires_grad}
    free = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert any(name.startswith("embeddings.") for name in frozen)
    assert free
    assert all(name.startswith("encoder.layer.1.") for name in free)


def test_zero_layers_freeze_nothing(encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder)
    freeze_layers(encoder, 0)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_freezing_too_many_layers_is_refused(encoder_folder: str) -> None:
    with pytest.raises(InputError, match=r"--model.freeze_layers: got 3, but the encoder has 2"):
        freeze_layers(load_encoder(encoder_folder), 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layers_are_reinitialized_in_every_family(family: str, tmp_path: Path) -> None:
    with quiet_transformers():
        made = AutoModel.from_config(FAMILIES[family]())  # type: ignore[no-untyped-call]
        for parameter in made.parameters():
            nn.init.constant_(parameter, 5.0)  # as no family draws it
        made.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    torch.manual_seed(0)
    reinit_layers(encoder, 1)
    new = {id(parameter) for parameter in encoder_layers(encoder)[-1].parameters()}
    for name, parameter in encoder.named_parameters():
        assert bool((parameter == 5).any()) is (id(parameter) not in new), name
    weights = [p for p in encoder_layers(encoder)[-1].parameters() if p.ndim > 1]
    assert all(0.001 < float(weight.detach().std()) < 0.1 for weight in weights)
    kept = [parameter.clone() for parameter in encoder.parameters()]
    reinit_layers(encoder, 0)
    torch.testing.assert_close(list(encoder.parameters()), kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("count", "frozen", "line"),
    [
        (3, 0, "got 3, but the encoder has 2 layers"),
        (1, 2, "got 1 with --model.freeze_layers 2, but .* re-initialized layers must be trained; use 0 at most"),
        (2, 1, "got 2 with --model.freeze_layers 1, but .*; use 1 at most"),
    ],
)
def test_layers_that_would_stay_random_are_refused(count: int, frozen: int, line: str, encoder_folder: str) -> None:
    with pytest.raises(InputError, match=f"^--model.reinit_layers: {line}"):
        reinit_layers(load_encoder(encoder_folder), count, frozen)


def test_shared_layers_count_as_one_and_refuse_checkpointing() -> None:
    config = AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )
    encoder = AlbertModel(config)
    assert len(encoder_layers(encoder)) == 1
    with pytest.raises(InputError, match=r"--model.gradient_checkpointing: got true, but albert encoders do not"):
        checkpoint_gradients(encoder)


def test_checkpointing_keeps_gradients_also_with_frozen_embeddings(encoder_folder: str) -> None:
    ids = torch.randint(8, 60, (2, 10), generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointed in (False, True):
        encoder = load_encoder(encoder_folder, dropout=0.0, attention_dropout=0.0)
        freeze_layers(encoder, 1)
        if checkpointed:
            checkpoint_gradients(encoder)
            assert encoder.is_activation_checkpointing
            assert not encoder.get_input_embeddings()(ids).requires_grad
        encoder(input_ids=ids).last_hidden_state.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1])
