"""A post of 500,000 words: memory stays bounded, in training, in validation and in a served model."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import WORDS, write_tiny_corpus, write_tiny_encoder

WORDS_OF_POST = 500_000
MOST_GB = 2.0

# Prints the memory that the process has needed at most so far, in GB above that of a run on short posts.
_PROGRAM = """
import json, resource, sys
import pandas as pd
from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.config.trainer import Trainer
from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule
from lightning_hpo.serving.flavor import save_model
from lightning_hpo.serving.text_model import _load_pyfunc

kind, form = sys.argv[1:]
agent = {"evidence": EvidenceAgent}.get(kind, CriteriaAgent)("encoder", **({"form": form} if form else {}))
quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)


def data(posts, seed):
    module = {"evidence": EvidenceDataModule}.get(kind, CriteriaDataModule)
    return module(
        posts=posts, annotations="annotations.csv", criteria="criteria.yaml", tokenizer="encoder", max_length=64,
        stride=16, seed=seed, val_fraction=0.4, **({"form": form} if form else {}),
    )


def run(posts, split):
    for seed in range(20):  # until the first post, which may be the long one, is in the split
        module = data(posts, seed)
        module.setup("fit")
        if "p0" in getattr(module._read(), split):
            break
    few = {"limit_train_batches": 100, "limit_val_batches": 2 if split == "train" else 1.0}
    trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, **few, **quiet)
    if split == "train":
        trainer.fit(agent, module)
    else:
        trainer.validate(agent, module, verbose=False)
    return module


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


module = run("posts.csv", "train")
path = f"model-{kind}-{form}"
save_model(path, module=agent, datamodule=module)
model = _load_pyfunc(f"{path}/data/texts")
model.predict(pd.DataFrame([("FATIGUE", "no sleep")], columns=["criterion", "post"]))
before, needed = peak(), {}
for split in ("train", "val"):
    run("long.csv", split)
    needed[split] = peak() - before
text = pd.read_csv("long.csv")["text"][0]
model.predict(pd.DataFrame([("FATIGUE", text), ("SLEEP_ISSUES", text)], columns=["criterion", "post"]))
needed["served"] = peak() - before
print(json.dumps(needed))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    write_tiny_encoder(folder / "encoder")
    write_tiny_corpus(folder)
    draw = random.Random(17)
    head, first, *others = (folder / "posts.csv").read_text().splitlines()
    long = " ".join([first, *draw.choices(WORDS, k=WORDS_OF_POST)])
    (folder / "long.csv").write_text("\n".join([head, long, *others]))
    return folder


@pytest.mark.parametrize(("kind", "form"), [("criteria", "pairs"), ("criteria", "one_pass"), ("evidence", "")])
def test_memory_is_bounded_for_a_post_of_any_length(folder: Path, kind: str, form: str) -> None:
    command = [sys.executable, "-c", _PROGRAM, kind, form]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    needed = json.loads(ran.stdout.splitlines()[-1])
    assert 0 < needed["served"] < MOST_GB, needed
