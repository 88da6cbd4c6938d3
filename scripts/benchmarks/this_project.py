"""This project's `tune` with all features: two databases, checkpoints, pruning, validation, logging the best model."""

import sys

import optuna
import torch
from mlflow import MlflowClient

from lightning_hpo.cli import main as lightning_hpo
from lightning_hpo.data import CriteriaDataModule
from scripts.benchmarks.setting import SEED, Result, Setting, read_setting

__all__ = ["count_batches", "main"]

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def main() -> None:
    """Run `tune` and save the result. Arguments: folder of the setting, precision, flags of `tune`."""
    setting, result = read_setting(sys.argv[1]), Result()
    storage, tracking = f"sqlite:///{setting.folder}/optuna.db", f"sqlite:///{setting.folder}/mlflow.db"
    config = setting.folder / "tune.yaml"
    config.write_text(_config(setting, _PRECISIONS[sys.argv[2]]), encoding="utf-8")
    study = ["--study.name", "ours", "--study.n_trials", str(setting.trials), "--study.register", "false"]
    databases = ["--study.storage", storage, "--study.tracking_uri", tracking]
    study += ["--study.outdir", str(setting.folder / "outputs")]
    code = lightning_hpo(["tune", "--config", str(config), *study, *databases, *sys.argv[3:]])
    assert code == 0
    trials = optuna.load_study(study_name="ours", storage=storage).trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    result.trials_s = [then - start for start, then in zip(starts, [*starts[1:], ends[-1]], strict=True)]
    metrics = [MlflowClient(tracking).get_run(trial.user_attrs["mlflow_run_id"]).data.metrics for trial in trials]
    for place in range(1, len(trials)):
        result.between_s.append(starts[place] - ends[place - 1] + metrics[place]["startup_s"])
    result.whole_s = max(ends) - min(starts)
    if torch.cuda.is_available():
        result.gpu_mib = max(each["peak_memory_mib"] for each in metrics)
    count_batches(setting, result)
    result.write(setting)


def _config(setting: Setting, precision: str) -> str:
    return f"""
seed_everything: {SEED}
model:
  class_path: lightning_hpo.agents.CriteriaAgent
  init_args: {{name: {setting.encoder}, head: {{layers: 0}}, optim: {{lr: {setting.lr}}}}}
data:
  class_path: lightning_hpo.data.CriteriaDataModule
  init_args:
    posts: {setting.folder}/posts.csv
    annotations: {setting.folder}/annotations.csv
    criteria: {setting.folder}/criteria.yaml
    max_length: {setting.max_length}
    stride: 64
    batch_size: {setting.batch_size}
    negative_ratio: 0.0
    seed: {SEED}
    split_rule: hash
    val_fraction: {setting.val_fraction}
    test_fraction: {setting.test_fraction}
trainer: {{max_epochs: {setting.epochs}, precision: {precision}, gradient_clip_val: 1.0, num_sanity_val_steps: 0}}
search_space:
  model.optim.weight_decay: {{low: 0.001, high: 0.01, log: true}}
"""


def count_batches(setting: Setting, result: Result) -> None:
    """Rebuild the batches of a trial to count them."""
    data = CriteriaDataModule(
        posts=f"{setting.folder}/posts.csv",
        annotations=f"{setting.folder}/annotations.csv",
        criteria=f"{setting.folder}/criteria.yaml",
        tokenizer=setting.encoder,
        max_length=setting.max_length,
        stride=64,
        batch_size=setting.batch_size,
        negative_ratio=0.0,
        seed=SEED,
        split_rule="hash",
        val_fraction=setting.val_fraction,
        test_fraction=setting.test_fraction,
    )
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(setting.epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            result.count(batch)
    expected = setting.epochs * setting.train_pairs, len(setting.pairs("val"))
    scored = sum(len(batch["post_ids"]) for batch in data.val_dataloader())
    assert (result.samples, scored) == expected, (
        f"pairs differ from the other contenders: expected {expected}, got {result.samples}, {scored}"
    )


if __name__ == "__main__":
    main()
