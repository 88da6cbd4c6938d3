from pathlib import Path
from typing import Any

import mlflow.pytorch
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient

from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
from lightning_hpo.cli import main
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.serving import flavor
from tests.callbacks.conftest import Fit, Scripted

pytestmark = [
    # torch.export in torch itself
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Weights = dict[str, torch.Tensor]


def _best(folder: Path, mode: str = "max") -> MLflowModelCheckpoint:
    return MLflowModelCheckpoint(folder, "val_metric", mode, wanted=lambda _: False)


def _last(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="last", enable_version_counter=False)


def _saved(folder: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(folder / "best.ckpt", weights_only=True)
    return saved


def _copy(module: LightningModule) -> Weights:
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def _equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class _Epochs(Callback):
    """Copies the weights at the end of each epoch."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append(_copy(pl_module))


class _SpyLog:
    """Replaces `log_model`: keeps the weights that it is called with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.weights: list[Weights] = []

    def __call__(
        self, module: LightningModule, datamodule: Any, *, run_id: str, tracking_uri: str
    ) -> flavor.LoggedModel:
        self.weights.append(_copy(module))
        if self.error is not None:
            raise self.error
        return flavor.LoggedModel("models:/m-1", "its seal")


@pytest.fixture
def spy_log(monkeypatch: pytest.MonkeyPatch) -> _SpyLog:
    spy = _SpyLog()
    monkeypatch.setattr(flavor, "log_model", spy)
    return spy


def test_best_epoch_is_kept_and_not_the_last(fit: Fit, tmp_path: Path) -> None:
    best = _best(tmp_path)
    fit([0.3, 0.5, 0.4], [best])
    assert best.best_value == pytest.approx(0.5)
    assert best.best_epoch == 1
    assert best.best_metrics["val_metric"] == pytest.approx(0.5)
    assert best.best_metrics["scripted_loss"] == 0.0  # logged before the validation of epoch 1
    assert _saved(tmp_path)["epoch"] == 1
    assert "optimizer_states" not in _saved(tmp_path)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]


@pytest.mark.parametrize(("mode", "epoch"), [("max", 1), ("min", 2)])
def test_best_epoch_is_kept_across_a_resume(fit: Fit, tmp_path: Path, mode: str, epoch: int) -> None:
    values = [0.3, 0.5, 0.1, 0.4, 0.2]
    fit(values[:3], [_best(tmp_path, mode), _last(tmp_path)])
    weights = _saved(tmp_path)["state_dict"]
    best = _best(tmp_path, mode)
    fit(values, [best, _last(tmp_path)], ckpt_path=tmp_path / "last.ckpt")
    assert best.best_value == pytest.approx(values[epoch])
    assert best.best_epoch == epoch
    assert best.best_metrics["val_metric"] == pytest.approx(values[epoch])
    assert _saved(tmp_path)["epoch"] == epoch
    assert _equal(weights, _saved(tmp_path)["state_dict"])


def test_better_epoch_after_a_resume_is_kept(fit: Fit, tmp_path: Path) -> None:
    fit([0.3, 0.5], [_best(tmp_path), _last(tmp_path)])
    best = _best(tmp_path)
    fit([0.3, 0.5, 0.6, 0.55], [best, _last(tmp_path)], ckpt_path=tmp_path / "last.ckpt")
    assert (best.best_epoch, _saved(tmp_path)["epoch"]) == (2, 2)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.ckpt"]


def test_first_of_equal_epochs_is_kept(fit: Fit, tmp_path: Path) -> None:
    best = _best(tmp_path)
    fit([0.5, 0.5, 0.5], [best])
    assert (best.best_epoch, _saved(tmp_path)["epoch"]) == (0, 0)


def test_logged_model_has_the_weights_of_the_best_epoch(
    fit: Fit, tmp_path: Path, tracking_uri: str, run_id: str
) -> None:
    best = MLflowModelCheckpoint(tmp_path, tracking_uri=tracking_uri, run_id=run_id)
    epochs, module = _Epochs(), Scripted([0.3, 0.5, 0.4])
    fit([0.3, 0.5, 0.4], [epochs, best], module=module)
    assert (best.best_epoch, best.problem) == (1, "")
    assert best.model_uri is not None
    logged = MlflowClient(tracking_uri).get_logged_model(best.model_uri.removeprefix("models:/"))
    assert logged.source_run_id == run_id
    network = mlflow.pytorch.load_model(logged.artifact_location)
    rows = torch.randn(5, 2)
    with torch.no_grad():
        last = module(rows)
        assert _equal(_copy(module), epochs.weights[2])  # the module keeps its own weights
        module.load_state_dict(epochs.weights[1])
        assert torch.allclose(network(rows), module(rows))
        assert not torch.allclose(network(rows), last)


def test_resumed_training_logs_the_earlier_best_epoch(fit: Fit, tmp_path: Path, spy_log: _SpyLog) -> None:
    values, epochs = [0.3, 0.5, 0.1, 0.4], _Epochs()
    fit(values[:3], [epochs, _best(tmp_path), _last(tmp_path)])
    best = MLflowModelCheckpoint(tmp_path, tracking_uri="sqlite://", run_id="run")
    fit(values, [epochs, best, _last(tmp_path)], ckpt_path=tmp_path / "last.ckpt")
    assert len(epochs.weights) == 4
    (logged,) = spy_log.weights
    assert _equal(logged, epochs.weights[1])
    assert best.model_uri == "models:/m-1"


def test_training_succeeds_while_mlflow_is_away(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    best = MLflowModelCheckpoint(tmp_path, tracking_uri="http://127.0.0.1:1", run_id="run")
    epochs, module = _Epochs(), Scripted([0.3, 0.5, 0.4])
    trainer = fit([0.3, 0.5, 0.4], [epochs, best], module=module)
    assert f"MLflowModelCheckpoint: {best.problem}" in caplog.messages
    assert trainer.state.finished
    assert best.problem == "model not logged: MLflow did not accept it (MlflowException)"
    assert best.model_uri is None
    assert _saved(tmp_path)["epoch"] == 1
    assert _equal(_copy(module), epochs.weights[2])


def test_failed_export_is_reported_in_one_line(
    fit: Fit, tmp_path: Path, tracking_uri: str, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = Scripted([0.3])
    module.example_input_array = None
    best = MLflowModelCheckpoint(tmp_path, tracking_uri=tracking_uri, run_id=run_id)
    trainer = fit([0.3], [best], module=module)
    assert f"MLflowModelCheckpoint: {best.problem}" in caplog.messages
    assert trainer.state.finished
    assert "example_input_array" in best.problem
    assert "\n" not in best.problem


def test_weights_are_restored_after_an_unexpected_error(fit: Fit, tmp_path: Path, spy_log: _SpyLog) -> None:
    spy_log.error = RuntimeError("injected")
    best = MLflowModelCheckpoint(tmp_path, tracking_uri="sqlite://", run_id="run")
    epochs, module = _Epochs(), Scripted([0.5, 0.4])
    with pytest.raises(RuntimeError, match="injected"):
        fit([0.5, 0.4], [epochs, best], module=module)
    assert _equal(_copy(module), epochs.weights[1])


def test_wanted_is_called_once_with_the_best_value(fit: Fit, tmp_path: Path, spy_log: _SpyLog) -> None:
    values: list[float] = []

    def wanted(value: float) -> bool:
        values.append(value)
        return False

    best = MLflowModelCheckpoint(tmp_path, wanted=wanted)
    fit([0.3, 0.5, 0.4], [best])
    assert values == [pytest.approx(0.5)]
    assert (best.model_uri, best.problem, spy_log.weights) == (None, "", [])


def test_nothing_is_logged_without_validation(fit: Fit, tmp_path: Path, spy_log: _SpyLog) -> None:
    best = MLflowModelCheckpoint(tmp_path, tracking_uri="sqlite://", run_id="run")
    fit([0.3], [best], limit_val_batches=0)
    assert (best.best_value, best.best_epoch, best.model_uri) == (None, None, None)
    assert spy_log.weights == []


def test_error_without_a_run_comes_before_training(fit: Fit, tmp_path: Path) -> None:
    epochs = _Epochs()
    with pytest.raises(LightningHpoError, match="no run to log the model to; give the Trainer an MLFlowLogger, or"):
        fit([0.3], [epochs, MLflowModelCheckpoint(tmp_path)])
    assert epochs.weights == []


def test_error_without_a_run_comes_after_training_if_the_model_is_wanted(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(LightningHpoError, match="no run to log the model to") as raised:
        fit([0.3], [MLflowModelCheckpoint(tmp_path, wanted=lambda _: True)])
    assert len(str(raised.value).splitlines()) == 1


def test_fast_dev_run_needs_no_run(fit: Fit, tmp_path: Path) -> None:
    fit([0.3], [MLflowModelCheckpoint(tmp_path)], fast_dev_run=True)
    assert not (tmp_path / "best.ckpt").exists()


def test_model_is_logged_to_the_run_of_the_logger(fit: Fit, mlflow_logger: MLFlowLogger, tmp_path: Path) -> None:
    best = MLflowModelCheckpoint(tmp_path)
    fit([0.3, 0.5], [best], logger=mlflow_logger, log_every_n_steps=1)
    assert best.model_uri is not None
    client = mlflow_logger.experiment
    assert client.get_logged_model(best.model_uri.removeprefix("models:/")).source_run_id == mlflow_logger.run_id
    assert client.get_run(str(mlflow_logger.run_id)).info.status == "FINISHED"


@pytest.mark.usefixtures("mlflow_logger")  # restores the tracking URI, which Lightning's logger sets
def test_fit_command_logs_the_best_model_with_an_mlflow_logger(
    foreign_config: dict[str, Any], tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"tracking_uri": tracking_uri}}
    trainer = foreign_config["trainer"] | {"logger": logger, "enable_progress_bar": False, "log_every_n_steps": 1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(foreign_config | {"trainer": trainer}), encoding="utf-8")
    assert main(["fit", "--config", "c.yaml"]) == 0
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([str(each.experiment_id) for each in client.search_experiments()])
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.source_run_id, run.info.status) == (run.info.run_id, "FINISHED")
    assert len(list(tmp_path.rglob("best.ckpt"))) == 1


def test_fit_command_takes_the_callback_by_class_path(
    foreign_config: dict[str, Any], tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = {"name": "first", "storage": "postgresql://me:secret@host/db"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(foreign_config | {"study": study}), encoding="utf-8")
    logger = ["--trainer.logger", "lightning.pytorch.loggers.MLFlowLogger"]
    logger += ["--trainer.logger.tracking_uri", tracking_uri, "--trainer.log_every_n_steps", "1"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    callback = "--trainer.callbacks+=lightning_hpo.callbacks.MLflowModelCheckpoint"
    cli = AgentCLI(["fit", "--config", "c.yaml", *logger, callback, *quiet], run=True)
    (best,) = [each for each in cli.trainer.checkpoint_callbacks if isinstance(each, MLflowModelCheckpoint)]
    assert best.problem == ""
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([cli.trainer.loggers[0].experiment_id])  # type: ignore[attr-defined]
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["config.yaml"]
    logged = Path(client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))).read_text(encoding="utf-8")
    assert "postgresql://me:***@host/db" in logged
    assert "secret" not in logged
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    assert checkpoint.parent.name == "checkpoints"
    assert run.info.run_id in checkpoint.parts
