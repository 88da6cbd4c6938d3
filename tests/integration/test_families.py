"""Both agents, from CSV files on, with a tiny random encoder and a tokenizer of every model family."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.data.demo_corpus import DemoCorpus
from tests.agents.network.test_text_network import FAMILIES

CORPUS = DemoCorpus(40, 17)
AGENTS = {"criteria": "Criteria", "evidence": "Evidence"}


def _trained(kind: str) -> Any:
    with quiet_transformers():
        return getattr(transformers, kind)().train_new_from_iterator(CORPUS.texts(), 800)


def _modernbert() -> PreTrainedTokenizerFast:
    """Byte-level BPE with BERT's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(CORPUS.texts(), trainer)
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]


TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "bert": partial(_trained, "BertTokenizer"),
    "electra": partial(_trained, "ElectraTokenizer"),
    "distilbert": partial(_trained, "DistilBertTokenizer"),
    "roberta": partial(_trained, "RobertaTokenizer"),
    "modernbert": _modernbert,
    "xlm-roberta": partial(_trained, "XLMRobertaTokenizer"),
    "albert": partial(_trained, "AlbertTokenizer"),
    "deberta-v2": partial(_trained, "DebertaV2Tokenizer"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    CORPUS.write(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp(request.param))
    tokenizer = TOKENIZERS[request.param]()
    config = FAMILIES[request.param]()
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 260
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    with quiet_transformers():
        transformers.AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(folder)
    return folder


def _cli(agent: str, encoder: str, corpus: Path, folder: Path, **model: Any) -> AgentCLI:
    data = {"posts": str(corpus / "posts.csv"), "annotations": str(corpus / "annotations.csv")}
    config = {
        "model": {"class_path": f"lightning_hpo.agents.{AGENTS[agent]}Agent", "init_args": {"name": encoder, **model}},
        "data": {
            "class_path": f"lightning_hpo.data.{AGENTS[agent]}DataModule",
            "init_args": {**data, "max_length": 240, "stride": 80, "batch_size": 8},
        },
        "trainer": {"accelerator": "cpu", "fast_dev_run": 2, "logger": False, "enable_progress_bar": False},
    }
    return AgentCLI(config, trainer_kwargs={"default_root_dir": str(folder), "enable_model_summary": False})


@pytest.mark.parametrize(("agent", "model"), [("criteria", {}), ("criteria", {"form": "one_pass"}), ("evidence", {})])
def test_every_family_trains_and_validates(
    agent: str, model: dict[str, Any], encoder: str, corpus: Path, tmp_path: Path
) -> None:
    cli = _cli(agent, encoder, corpus, tmp_path, **model)
    cli.trainer.fit(cli.model, cli.datamodule)
    metrics = cli.trainer.callback_metrics
    assert torch.isfinite(metrics["train_loss"])
    assert 0.0 <= float(metrics["val_metric"]) <= 1.0


def test_labelled_evidence_is_decoded_to_the_same_characters(encoder: str, corpus: Path, tmp_path: Path) -> None:
    cli = _cli("evidence", encoder, corpus, tmp_path)
    cli.datamodule.setup("validate")
    found = 0
    for batch in cli.datamodule.val_dataloader():
        cli.model.logits = _confident_logits(batch)
        rows = cli.model.predict_step(batch)
        for row, gold in zip(rows, batch["spans"], strict=True):
            assert row["null"] is not bool(gold)
            if gold:
                assert (row["start"], row["end"]) in [tuple(span) for span in gold]
                found += 1
    assert found > 5


def _confident_logits(batch: Any) -> Callable[[Any], torch.Tensor]:
    logits = torch.zeros(*batch["input_ids"].shape, 2)
    for side, name in enumerate(("start_positions", "end_positions")):
        places = batch[name].reshape(len(logits), -1)[:, 0]
        known = places >= 0
        logits[torch.arange(len(logits))[known], places[known], side] = 20.0
        logits[torch.arange(len(logits))[~known], 0, side] = 20.0
    return lambda _: logits
