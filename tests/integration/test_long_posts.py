"""A post of 500,000 words: memory stays bounded, in training, in validation and in a served model."""

import json
import random
import subprocess
import sys
from pathlib import Path

from transformers import BertConfig

from tests.tiny import WORDS, write_tiny_corpus, write_tiny_encoder

WORDS_OF_POST = 500_000
MOST_GB = 2.0

# Prints the memory that the process has needed at most so far, in GB above that of a run on short posts, for each agent
# and each step.
_PROGRAM = r"""
import json, re
from pathlib import Path
import pandas as pd
from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent
from lightning_hpo.config.trainer import Trainer
from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule, JointDataModule
from lightning_hpo.serving.flavor import save_model
from lightning_hpo.serving.text_model import _load_pyfunc

KINDS = {
    "criteria": (CriteriaAgent, CriteriaDataModule),
    "evidence": (EvidenceAgent, EvidenceDataModule),
    "joint": (JointAgent, JointDataModule),  # more than the one-pass form of the criteria agent
}
FILES = {"annotations": "annotations.csv", "criteria": "criteria.yaml", "tokenizer": "encoder"}
QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)


def run(kind, posts, split):
    agent, data = KINDS[kind]
    for seed in range(20):  # until the first post, which may be the long one, is in the split
        module = data(posts=posts, max_length=512, stride=128, seed=seed, val_fraction=0.4, **FILES)
        module.setup("fit")
        if "p0" in getattr(module._read(), split):
            break
    few = {"limit_train_batches": 10, "limit_val_batches": 2 if split == "train" else 1.0}
    trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, **few, **QUIET)
    model = agent("encoder")
    if split == "train":
        trainer.fit(model, module)
    else:
        trainer.validate(model, module, verbose=False)
    return model, module


def answer(kind, post):
    table = pd.DataFrame([("FATIGUE", post), ("SLEEP_ISSUES", post)], columns=["criterion", "post"])
    _load_pyfunc(f"model-{kind}/data/texts").predict(table)


def peak():  # not that of `resource`, which is at least that of the parent process
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6


for kind in KINDS:
    model, module = run(kind, "posts.csv", "train")
    save_model(f"model-{kind}", module=model, datamodule=module)
    answer(kind, "no sleep")
before, needed = peak(), {}
for kind in KINDS:
    for split in ("train", "val"):
        run(kind, "long.csv", split)
        needed[f"{kind}, {split}"] = peak() - before
    answer(kind, pd.read_csv("long.csv")["text"][0])
    needed[f"{kind}, served"] = peak() - before
print(json.dumps(needed))
"""


def test_memory_is_bounded_for_a_post_of_any_length(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    write_tiny_encoder(tmp_path / "encoder", config, model_max_length=512)
    write_tiny_corpus(tmp_path)
    draw = random.Random(17)
    head, first, *others = (tmp_path / "posts.csv").read_text().splitlines()
    long = " ".join([first, *draw.choices(WORDS, k=WORDS_OF_POST)])
    (tmp_path / "long.csv").write_text("\n".join([head, long, *others]))
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    needed = json.loads(ran.stdout.splitlines()[-1])
    assert len(needed) == 9
    assert 0 < max(needed.values()) < MOST_GB, needed
