"""transformers' Trainer with its `hyperparameter_search` (Optuna backend) and its MLflow callback."""

import os
import sys
from typing import Any

import mlflow
import optuna
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from scripts.benchmarks.setting import SEED, Result, Setting, read_setting

__all__ = ["main"]

_VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "grouped": {"train_sampling_strategy": "group_by_length"},
    "best": {"train_sampling_strategy": "group_by_length", "bf16": True},
}


class _Pairs(Dataset[dict[str, Any]]):
    def __init__(self, setting: Setting, tokenizer: PreTrainedTokenizerBase, part: str) -> None:
        criteria, posts, met = zip(*setting.pairs(part), strict=True)
        encoded = tokenizer(list(criteria), list(posts), truncation="only_second", max_length=setting.max_length)
        self._rows = [{**{n: encoded[n][row] for n in encoded}, "labels": met[row]} for row in range(len(met))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Clock(TrainerCallback):
    def __init__(self, result: Result) -> None:
        self._result = result

    def on_step_begin(self, *hook: Any, **given: Any) -> None:  # noqa: ARG002 - arguments of the library
        self._result.first_batch()

    def on_train_end(self, *hook: Any, **given: Any) -> None:  # noqa: ARG002 - arguments of the library
        self._result.ended()


class _Counting:
    """Collator that counts the training batches of the first trial."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, result: Result, most: int) -> None:
        self._collate, self._result, self._most = DataCollatorWithPadding(tokenizer), result, most

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collate(rows)
        if torch.is_grad_enabled() and self._result.samples < self._most:
            self._result.count(batch)
        return batch


def main() -> None:
    """Run the search and save the result. Arguments: folder of the setting, name of the variant."""
    setting, result = read_setting(sys.argv[1]), Result()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{setting.folder}/mlflow.db"
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "transformers"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tokenizer = AutoTokenizer.from_pretrained(setting.encoder)
    trainer = Trainer(
        args=_arguments(setting, **_VARIANTS[sys.argv[2]]),
        model_init=lambda _: AutoModelForSequenceClassification.from_pretrained(setting.encoder, num_labels=2),
        train_dataset=_Pairs(setting, tokenizer, "train"),
        eval_dataset=_Pairs(setting, tokenizer, "val"),
        data_collator=_Counting(tokenizer, result, setting.epochs * setting.train_pairs),
        callbacks=[_Clock(result)],
    )
    storage = f"sqlite:///{setting.folder}/optuna.db"
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", setting.lr, setting.lr)},
        backend="optuna",
        n_trials=setting.trials,
        direction="minimize",
        storage=storage,
        study_name="transformers",
    )
    trials = optuna.load_study(study_name="transformers", storage=storage).trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    last = trials[-1].datetime_complete
    assert last is not None
    result.trials_s = [then - start for start, then in zip(starts, [*starts[1:], last.timestamp()], strict=True)]
    result.write(setting)


def _arguments(setting: Setting, **variant: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(setting.folder / "transformers"),
        per_device_train_batch_size=setting.batch_size,
        num_train_epochs=setting.epochs,
        eval_strategy="epoch",
        report_to=["mlflow"],
        disable_tqdm=True,
        seed=SEED,
        use_cpu=not torch.cuda.is_available(),
        **variant,
    )


if __name__ == "__main__":
    main()
