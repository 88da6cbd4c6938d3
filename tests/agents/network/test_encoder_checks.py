from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from lightning_hpo.agents.network.encoder import longest_input, quiet_transformers
from lightning_hpo.agents.network.encoder_checks import (
    check_first_token,
    check_ids,
    check_length,
    check_longest_window,
    check_text_encoder,
)
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.exceptions import InputError
from tests.agents.network.test_text_network import FAMILIES

_SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
_IMAGES: dict[str, Any] = {**_SIZE, "image_size": 16, "patch_size": 8}

CAUSAL: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=40),
    "llama": lambda: transformers.LlamaConfig(**_SIZE),
    "opt": lambda: transformers.OPTConfig(
        **{**_SIZE, "ffn_dim": 16, "word_embed_proj_dim": 16}  # its position table has two rows more
    ),
}
NO_TEXT: dict[str, Callable[[], PreTrainedConfig]] = {
    "vit": lambda: transformers.ViTConfig(**_IMAGES),
    "clip": lambda: transformers.CLIPConfig(text_config=_SIZE, vision_config=_IMAGES, projection_dim=8),
    "wav2vec2": lambda: transformers.Wav2Vec2Config(
        **_SIZE, conv_dim=(16,), conv_stride=(2,), conv_kernel=(3,), num_conv_pos_embedding_groups=2
    ),
}


def _encoder(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    with quiet_transformers():
        encoder: PreTrainedModel = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    encoder.train()
    return encoder


@pytest.mark.parametrize("family", [*FAMILIES, "mpnet"])
def test_text_encoders_pass_and_keep_their_mode(family: str) -> None:
    config = transformers.MPNetConfig(**_SIZE) if family == "mpnet" else FAMILIES[family]()
    encoder = _encoder(config)
    before = torch.get_rng_state()
    check_text_encoder(family, encoder)
    check_first_token(encoder, "pooled")
    check_first_token(encoder, "no evidence")
    assert all(part.training for part in encoder.modules())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", NO_TEXT)
def test_models_of_images_and_sounds_are_refused(family: str) -> None:
    with pytest.raises(InputError, match=rf"^--model.name: got 'x', a {family} model, which fails on token ids"):
        check_text_encoder("x", _encoder(NO_TEXT[family]()))


@pytest.mark.parametrize("family", CAUSAL)
def test_first_token_of_a_causal_model_is_refused(family: str) -> None:
    encoder = _encoder(CAUSAL[family]())
    check_text_encoder(family, encoder)
    with pytest.raises(
        InputError, match=rf"^--model.head.pooling: got cls, but in {family} models,.* use last or mean$"
    ):
        check_first_token(encoder, "pooled")
    with pytest.raises(InputError, match=rf'^--model.name: got a {family} model, but .* decides "no evidence", reads'):
        check_first_token(encoder, "no evidence")
    check_first_token(encoder, "unused")


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (transformers.BertConfig(**_SIZE), 40),
        (transformers.RobertaConfig(**_SIZE, pad_token_id=1), 38),
        (transformers.MPNetConfig(**_SIZE, pad_token_id=1), 38),
        (transformers.XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=16), None),
        (FAMILIES["deberta-v2"](), None),
    ],
)
def test_longest_window_is_found_and_runs(config: PreTrainedConfig, longest: int | None) -> None:
    encoder = _encoder(config)
    assert longest_input(encoder) == longest
    check_length(encoder, longest or 100)
    check_longest_window(encoder, longest or 100)
    if longest is not None:
        with pytest.raises(InputError, match=rf"^--data.max_length: {longest + 1} is more than the {longest} tokens"):
            check_length(encoder, longest + 1)
        with pytest.raises(InputError, match=rf"^--data.max_length: got {longest + 1}, but the encoder fails on so"):
            check_longest_window(encoder, longest + 1)


def test_ids_without_an_embedding_are_refused() -> None:
    encoder = _encoder(transformers.BertConfig(**_SIZE, type_vocab_size=2))
    check_ids(encoder, 49, 1)
    with pytest.raises(InputError, match=r"^--model.name: its tokenizer has token ids up to 50, but the encoder has"):
        check_ids(encoder, 50, 1)
    with pytest.raises(InputError, match=r"^--model.name: its tokenizer has token type ids up to 2, but the encoder"):
        check_ids(encoder, 49, 2)


def test_an_encoder_with_one_token_type_gets_none() -> None:
    encoder = _encoder(transformers.BertConfig(**_SIZE, type_vocab_size=1))
    check_ids(encoder, 49, 1)
    ids = torch.ones(1, 4, dtype=torch.long)
    TextNetwork(encoder, TokenHead(EvidenceHead(), 16))(ids, ids, ids)
