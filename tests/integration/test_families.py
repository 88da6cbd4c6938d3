"""The agents, from CSV files on, with a tiny random encoder and a tokenizer of every model family."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.serving.flavor import save_model
from tests.agents.network.test_encoder_checks import CAUSAL
from tests.agents.network.test_text_network import FAMILIES
from tests.hub import modernbert_tokenizer

CORPUS = DemoCorpus(40, 17)
AGENTS = {"criteria": "Criteria", "evidence": "Evidence", "joint": "Joint"}


def _trained(kind: str) -> Any:
    with quiet_transformers():
        return getattr(transformers, kind)().train_new_from_iterator(CORPUS.texts(), 800)


TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "bert": partial(_trained, "BertTokenizer"),
    "electra": partial(_trained, "ElectraTokenizer"),
    "distilbert": partial(_trained, "DistilBertTokenizer"),
    "roberta": partial(_trained, "RobertaTokenizer"),
    "modernbert": partial(modernbert_tokenizer, CORPUS.texts(), 800),
    "xlm-roberta": partial(_trained, "XLMRobertaTokenizer"),
    "albert": partial(_trained, "AlbertTokenizer"),
    "deberta-v2": partial(_trained, "DebertaV2Tokenizer"),
    "gpt2": partial(_trained, "GPT2Tokenizer"),
    "llama": partial(_trained, "LlamaTokenizer"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    CORPUS.write(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _written(request.param, FAMILIES[request.param](), str(tmp_path_factory.mktemp(request.param)))


def _written(family: str, config: transformers.PreTrainedConfig, folder: str) -> str:
    tokenizer = TOKENIZERS[family]()
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


@pytest.mark.parametrize(
    ("agent", "model"), [("criteria", {}), ("criteria", {"form": "one_pass"}), ("evidence", {}), ("joint", {})]
)
def test_every_family_trains_and_validates(
    agent: str, model: dict[str, Any], encoder: str, corpus: Path, tmp_path: Path
) -> None:
    cli = _cli(agent, encoder, corpus, tmp_path, **model)
    cli.trainer.fit(cli.model, cli.datamodule)
    metrics = cli.trainer.callback_metrics
    assert torch.isfinite(metrics["train_loss"])
    assert 0.0 <= float(metrics["val_metric"]) <= 1.0


# raised by torch.export
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_causal_models_are_trained_by_adapters_and_served_with_the_last_token(
    family: str, corpus: Path, tmp_path: Path
) -> None:
    encoder = _written(family, CAUSAL[family](), str(tmp_path / "encoder"))
    lora = {"r": 4, "dropout": 0.0}
    cli = _cli("criteria", encoder, corpus, tmp_path, head={"pooling": "last", "layers": 0}, lora=lora)
    before = {name: value.clone() for name, value in cli.model.state_dict().items()}
    cli.trainer.fit(cli.model, cli.datamodule)
    after = cli.model.state_dict()
    trained = {name for name in after if not torch.equal(before[name], after[name])}
    assert trained == {name for name in after if "lora_" in name or "head" in name}
    rows: Any = (cli.trainer.predict(cli.model, cli.datamodule.val_dataloader()) or [[]])[0]
    save_model(str(tmp_path / "model"), module=cli.model, datamodule=cli.datamodule)
    posts = [cli.datamodule.corpus.posts[row["post_id"]] for row in rows]
    table = pd.DataFrame({"criterion": [row["criterion"] for row in rows], "post": posts})
    answers = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(table)["probability"]
    np.testing.assert_allclose(answers, [row["probability"] for row in rows], atol=1e-5)
    assert len(set(answers.round(6))) > 5


@pytest.mark.parametrize("agent", ["evidence", "joint"])
def test_labelled_evidence_is_decoded_to_the_same_characters(
    agent: str, encoder: str, corpus: Path, tmp_path: Path
) -> None:
    cli = _cli(agent, encoder, corpus, tmp_path)
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
    is_joint = "row_windows" in batch
    logits = torch.zeros(len(batch["start_positions"]), batch["input_ids"].shape[1], 2)
    for side, name in enumerate(("start_positions", "end_positions")):
        places = batch[name].reshape(len(logits), -1)[:, 0]
        known = places >= 0
        logits[torch.arange(len(logits))[known], places[known], side] = 20.0
        logits[torch.arange(len(logits))[~known], 0, side] = 20.0
    return lambda _: torch.cat((torch.zeros(len(logits), 1, 2), logits), dim=1) if is_joint else logits
