"""A tiny encoder, batches like those of the data modules, and a quiet Trainer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel

from lightning_hpo.agents.network.encoder import quiet_transformers

Batch = dict[str, Any]

LENGTH, PAIRS, FIRST_OF_POST = 24, 16, 6
SIGN = 7  # a window with this token meets the criterion; its evidence is this token and the next


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: with tensors this small, more threads are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT with two layers and random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with quiet_transformers():
        BertModel(config).save_pretrained(folder)
    return str(folder)


def _windows(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, 60, (PAIRS, LENGTH), generator=generator)
    ids[:, 0] = 2
    labels = torch.arange(PAIRS) % 2
    place = torch.randint(FIRST_OF_POST, LENGTH - 1, (PAIRS,), generator=generator)
    ids[labels == 1, place[labels == 1]] = SIGN
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": labels,
        "start_positions": place * labels,
        "end_positions": (place + 1) * labels,
    }


def make_training_batch(seed: int) -> Batch:
    """Return windows with labels for both agents."""
    places = torch.arange(PAIRS)
    return {**_windows(seed), "augmented": places < PAIRS // 4, "unaugmentable": places == PAIRS - 1}


def make_eval_batch(seed: int) -> Batch:
    """Return pairs with one window each. A token has four characters. The post starts at character 0."""
    batch = _windows(seed)
    places = torch.arange(LENGTH - FIRST_OF_POST) * 4
    offsets = torch.full((PAIRS, LENGTH, 2), -1)
    offsets[:, FIRST_OF_POST:] = torch.stack((places, places + 4), dim=-1)
    starts = ((batch["start_positions"] - FIRST_OF_POST) * 4).tolist()
    return {
        **batch,
        "pair_index": torch.arange(PAIRS),
        "post_ids": [f"post-{pair}" for pair in range(PAIRS)],
        "criteria": ["FATIGUE"] * PAIRS,
        "met": batch["labels"],
        "offsets": offsets,
        "spans": [
            [(start, start + 8)] if met else [] for start, met in zip(starts, batch["labels"].tolist(), strict=True)
        ],
    }


@pytest.fixture(scope="session")
def training_batches() -> list[Batch]:
    return [make_training_batch(seed) for seed in range(30)]


@pytest.fixture(scope="session")
def eval_batches() -> list[Batch]:
    return [make_eval_batch(seed) for seed in range(100, 103)]


@pytest.fixture
def loader() -> Callable[[list[Batch]], Any]:
    return lambda batches: DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(**options: Any) -> Trainer:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
        settings = {"accelerator": "cpu", "default_root_dir": tmp_path, "enable_model_summary": False, **quiet}
        return Trainer(**{**settings, **options})

    return make
