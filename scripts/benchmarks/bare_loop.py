"""Lower bound: a training loop over batches of similar length, without a study, tracking or checkpoints."""

import sys
import time
from collections.abc import Iterator

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scripts.benchmarks.setting import SEED, Classifier, Result, Setting, loss_of, read_setting

__all__ = ["main"]

_EVAL_BATCH = 64
Batch = dict[str, torch.Tensor]


def main() -> None:
    """Train the trials and save the result. Arguments: folder of the setting, precision."""
    setting, result = read_setting(sys.argv[1]), Result()
    tokenizer = AutoTokenizer.from_pretrained(setting.encoder)
    for trial in range(setting.trials):
        start = time.perf_counter()
        _train(setting, tokenizer, sys.argv[2] == "bf16", result, counted=trial == 0)
        result.ended()
        result.trials_s.append(time.perf_counter() - start)
    result.write(setting)


def _train(
    setting: Setting, tokenizer: PreTrainedTokenizerBase, narrow: bool, result: Result, *, counted: bool
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    model = Classifier(setting.encoder).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, fused=True)
    for epoch in range(setting.epochs):
        model.train()
        for place, batch in enumerate(_batches(setting, tokenizer, "train", setting.batch_size)):
            if epoch == place == 0:
                result.first_batch()
            if counted:
                result.count(batch)
            loss = _loss(model, batch, device, narrow)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            for batch in _batches(setting, tokenizer, "val", _EVAL_BATCH):
                _loss(model, batch, device, narrow).item()


def _loss(model: Classifier, batch: Batch, device: torch.device, narrow: bool) -> torch.Tensor:
    moved = {name: value.to(device) for name, value in batch.items()}
    labels = moved.pop("labels")
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        return loss_of(model(**moved), labels)


def _batches(setting: Setting, tokenizer: PreTrainedTokenizerBase, part: str, size: int) -> Iterator[Batch]:
    criteria, posts, met = zip(*setting.pairs(part), strict=True)
    encoded = tokenizer(list(criteria), list(posts), truncation="only_second", max_length=setting.max_length)
    order = sorted(range(len(met)), key=lambda row: len(encoded["input_ids"][row]))
    cut = [order[first : first + size] for first in range(0, len(order), size)]
    for place in torch.randperm(len(cut)).tolist():
        rows = cut[place]
        batch = tokenizer.pad(
            {name: [encoded[name][row] for row in rows] for name in encoded}, pad_to_multiple_of=8, return_tensors="pt"
        )
        yield {**batch, "labels": torch.tensor([met[row] for row in rows])}


if __name__ == "__main__":
    main()
