"""The network and torch.export with every encoder family, with any batch size and length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from lightning_hpo.agents.network.encoder import encoder_layers, load_encoder, quiet_transformers
from lightning_hpo.agents.network.heads import CriteriaHead, EvidenceHead, PoolingName, TokenHead, WindowHead
from lightning_hpo.agents.network.text_network import TextNetwork

_SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
# Settings of microsoft/deberta-v3-base.
_DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**_SIZE),
    "roberta": lambda: transformers.RobertaConfig(**_SIZE, type_vocab_size=1),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**_SIZE, type_vocab_size=1),
    "electra": lambda: transformers.ElectraConfig(**_SIZE, embedding_size=8),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16, max_position_embeddings=40
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(**_SIZE, **_DEBERTA),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=8
    ),
    "albert": lambda: transformers.AlbertConfig(**_SIZE, embedding_size=8),
}


def _inputs(batch: int, length: int, count: int) -> tuple[Tensor, ...]:
    ids = torch.randint(5, 50, (batch, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 + 1 :] = 0
    return (ids, mask, torch.ones_like(ids))[:count]


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> TextNetwork:
    torch.manual_seed(0)
    with quiet_transformers():
        model: Any = transformers.AutoModel.from_config(FAMILIES[request.param]())  # type: ignore[no-untyped-call]
        model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), dropout=0.1, attention_dropout=0.1)
    assert len(encoder_layers(encoder)) == (1 if request.param == "albert" else 2)
    return TextNetwork(encoder, TokenHead(EvidenceHead(), encoder.config.hidden_size)).eval()


# raised by torch.export
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_exported_network_takes_any_batch_size_and_length(network: TextNetwork) -> None:
    dynamic = torch.export.Dim.AUTO
    shapes = [{0: dynamic, 1: dynamic}] * 3
    exported = torch.export.export(network, _inputs(2, 16, 3), dynamic_shapes=shapes).module()
    for batch, length in ((1, 16), (3, 7), (1, 1), (5, 38)):
        inputs = _inputs(batch, length, 3)
        torch.testing.assert_close(exported(*inputs), network(*inputs))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("pooling", get_args(PoolingName))
def test_exported_pooling_takes_any_batch_size_and_length(pooling: PoolingName, encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder)
    network = TextNetwork(encoder, WindowHead(CriteriaHead(pooling=pooling), encoder.config.hidden_size)).eval()
    dynamic = torch.export.Dim.AUTO
    exported = torch.export.export(network, _inputs(2, 16, 2), dynamic_shapes=[{0: dynamic, 1: dynamic}] * 2).module()
    for batch, length in ((1, 16), (3, 7), (1, 1), (5, 38)):
        inputs = _inputs(batch, length, 2)
        torch.testing.assert_close(exported(*inputs), network(*inputs))


def test_padding_does_not_change_the_logits(network: TextNetwork) -> None:
    ids, mask = _inputs(1, 9, 2)
    longer = torch.cat((ids, ids[:, :4]), dim=1), torch.cat((mask, torch.zeros_like(mask[:, :4])), dim=1)
    kept = int(mask.sum())
    torch.testing.assert_close(network(*longer)[:, :kept], network(ids, mask)[:, :kept], atol=1e-5, rtol=1e-4)


def test_token_types_are_used_if_the_encoder_has_them(encoder_folder: str) -> None:
    encoder = load_encoder(encoder_folder)
    network = TextNetwork(encoder, WindowHead(CriteriaHead(), encoder.config.hidden_size)).eval()
    ids, mask, types = _inputs(2, 9, 3)
    torch.testing.assert_close(network(ids, mask), network(ids, mask, torch.zeros_like(types)))
    assert not torch.allclose(network(ids, mask), network(ids, mask, types))
