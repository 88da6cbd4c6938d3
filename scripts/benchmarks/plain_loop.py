"""A plain study: an Optuna objective with a training loop, one MLflow run per trial, full padding, float32."""

import sys

import mlflow
import optuna
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from scripts.benchmarks.setting import SEED, Classifier, Result, Setting, loss_of, read_setting

__all__ = ["main"]


def main() -> None:
    """Run the study and save the result in the folder of the setting."""
    setting, result = read_setting(sys.argv[1]), Result()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{setting.folder}/mlflow.db")
    mlflow.set_experiment("plain")
    study = optuna.create_study(direction="maximize", storage=f"sqlite:///{setting.folder}/optuna.db")
    study.optimize(lambda trial: _objective(trial, setting, result), n_trials=setting.trials)
    starts = [trial.datetime_start.timestamp() for trial in study.trials if trial.datetime_start]
    last = study.trials[-1].datetime_complete
    assert last is not None
    result.trials_s = [then - start for start, then in zip(starts, [*starts[1:], last.timestamp()], strict=True)]
    result.write(setting)


def _objective(trial: optuna.Trial, setting: Setting, result: Result) -> float:
    lr = trial.suggest_float("model.optim.lr", setting.lr, setting.lr)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with mlflow.start_run(run_name=f"trial_{trial.number}"):
        mlflow.set_tags({"optuna_trial": trial.number, "optuna_study": "plain", "agent": "criteria"})
        mlflow.log_params(trial.params)
        torch.manual_seed(SEED)
        train, val = (_loader(setting, part, shuffle=part == "train") for part in ("train", "val"))
        model = Classifier(setting.encoder).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        best = 0.0
        for epoch in range(setting.epochs):
            model.train()
            for batch in train:
                if epoch == 0:
                    result.first_batch()
                if trial.number == 0:
                    result.count(batch)
                labels = batch.pop("labels").to(device)
                loss = loss_of(model(**{name: value.to(device) for name, value in batch.items()}), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
            metric, val_loss = _validate(model, val, device)
            best = max(best, metric)
            mlflow.log_metrics({"val_metric": metric, "val_loss": val_loss, "epoch": epoch}, step=epoch)
            trial.report(metric, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        mlflow.log_metric("final_metric", best)
    result.ended()
    return best


def _loader(setting: Setting, part: str, *, shuffle: bool) -> DataLoader[dict[str, torch.Tensor]]:
    criteria, posts, met = zip(*setting.pairs(part), strict=True)
    encoded = AutoTokenizer.from_pretrained(setting.encoder)(
        list(criteria),
        list(posts),
        padding="max_length",
        truncation="only_second",
        max_length=setting.max_length,
        return_tensors="pt",
    )
    rows = [
        {**{name: encoded[name][row] for name in encoded}, "labels": torch.tensor(met[row])} for row in range(len(met))
    ]
    return DataLoader(rows, batch_size=setting.batch_size, shuffle=shuffle)  # type: ignore[arg-type]


def _validate(
    model: Classifier, loader: DataLoader[dict[str, torch.Tensor]], device: torch.device
) -> tuple[float, float]:
    model.eval()
    right = count = 0
    total = 0.0
    with torch.no_grad():
        for batch in loader:
            labels = batch.pop("labels").to(device)
            logits = model(**{name: value.to(device) for name, value in batch.items()})
            total += float(loss_of(logits, labels)) * len(labels)
            right += int((logits.argmax(dim=-1) == labels).sum())
            count += len(labels)
    return right / count, total / count


if __name__ == "__main__":
    main()
