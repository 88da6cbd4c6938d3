"""Verification of a registered model: load it in a fresh process, and compare its score with that of its trial."""

import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_hpo.agents.evaluation import EvaluatedModule
from lightning_hpo.agents.pair_outputs import PairOutputs
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.callbacks.checkpoint_files import load_weights
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import read_yaml
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.train_loader import unchanged
from lightning_hpo.hardware.bf16 import allow_bf16, computes_bf16
from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.serving.checksums import DIGEST, MLMODEL, first_changed_file, seal_of
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.errors import reason_of
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["verify"]

_TOLERANCE = 1e-4
_TOLERANCE_16_BIT = 5e-3
# Of the score, where the outputs of all pairs are compared as well: only pairs close to the threshold move it.
_TOLERANCE_WITH_OUTPUTS = 0.05
_LARGEST_MLMODEL = 1_000_000


@dataclass(frozen=True)
class _Expectation:
    """The files and the score that a model must have."""

    uri: str
    tracking_uri: str
    seal: str
    trial_folder: TrialFolder
    monitor: str
    value: float
    data_fingerprint: str | None


def verify(model: ScoredModel, uri: str, tracker: Tracker, workers: Workers) -> str:
    """Check in a fresh process that a logged or registered model has the logged files and the score of its trial.

    Returns:
        Why it cannot be loaded, or how its files, data or score differ; an empty text if they do not.
    """
    about = model.study.user_attrs
    expectation = _Expectation(
        uri=uri,
        tracking_uri=tracker.uri,
        seal=model.seal or "",
        trial_folder=model.folder,
        monitor=about[StudyKey.MONITOR],
        value=float(model.value or 0.0),
        data_fingerprint=about[StudyKey.DATA_FINGERPRINT],
    )
    problem: str | ProcessExit = workers.call(_send_problem, expectation, log=model.folder.path / "proof.log")
    if isinstance(problem, ProcessExit):
        return f"the process that loads it did not finish: {problem.reason}"
    return problem


def _tolerance(trial_folder: TrialFolder) -> float:
    """Return the allowed difference from the score of a trial, which may have used another precision or device."""
    return _TOLERANCE_16_BIT if _is_16_bit(trial_folder) else _TOLERANCE


def _is_16_bit(trial_folder: TrialFolder) -> bool:
    precision = _precision(trial_folder)
    # `auto` may have selected bf16 on the machine that trained the trial.
    return "16" in precision or precision == "auto"


def _precision(trial_folder: TrialFolder) -> str:
    config = read_yaml(trial_folder.config.read_text(encoding="utf-8"))
    return str(config["trainer"].get("precision"))


def _send_problem(expectation: _Expectation, pipe: Connection) -> None:
    """Send why a version fails verification, or an empty text."""
    try:
        pipe.send(_problem(expectation))
    # A file that is not as it was logged is found before. Those of version 0.1.0 and torch raise anything.
    except Exception as error:  # noqa: BLE001
        pipe.send(f"it cannot be loaded and run: {type(error).__name__}")


def _problem(expectation: _Expectation) -> str:
    """Check the files, then score the model on its trial's validation split, or compare a custom module's output."""
    import mlflow

    mlflow.set_tracking_uri(expectation.tracking_uri)
    with tempfile.TemporaryDirectory(prefix="lightning_hpo-") as own:
        try:
            uri, server = expectation.uri, expectation.tracking_uri
            with _limited_files(Path(own)):
                folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=own, tracking_uri=server))
        except Exception as error:  # noqa: BLE001 - MLflow reads what a server sends without a look at its types
            return f"its files cannot be downloaded: {reason_of(error)}"
        for cache in list(folder.rglob("__pycache__")):
            shutil.rmtree(cache)  # Python writes it when it loads a model, and does not compare it with the source
        return _problem_of_files(folder, expectation)


@contextmanager
def _limited_files(folder: Path) -> Iterator[None]:
    """Limit each written file to half of the free space: what a server or a store sends may never end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    free = shutil.disk_usage(folder).free // 2
    most = free if before[0] == resource.RLIM_INFINITY else min(free, before[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _problem_of_files(folder: Path, expectation: _Expectation) -> str:
    from lightning_hpo.serving.flavor import restore_decision
    from lightning_hpo.serving.text_model import load_network

    # The score alone may not reveal a flipped bit of a weight, and no file may be read that was not logged.
    changed = first_changed_file(folder, _logged_digests(folder, expectation.seal), expectation.seal)
    if changed is not None:
        return f"{changed} is not as it was logged: its {DIGEST} differs, or there was no such file"
    loaded, tolerance = load_network(folder), _tolerance(expectation.trial_folder)
    cli = _cli(expectation.trial_folder)
    if hasattr(cli.model, "network"):
        allow_bf16(loaded)  # as in the trial
        cli.model.network = _Network(loaded)
        if isinstance(cli.model, TextAgent):
            restore_decision(folder, cli.model)  # the config does not hold what was fitted
        cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
        fingerprint = getattr(cli.datamodule, "fingerprint", None)
        if fingerprint != expectation.data_fingerprint:
            return (
                "the data have changed since the trial was trained: their fingerprint was "
                f"{expectation.data_fingerprint}, and is now {fingerprint}"
            )
        value, expected = float(cli.trainer.callback_metrics[expectation.monitor]), expectation.value
        reference = PairOutputs.load(expectation.trial_folder.outputs)
        if reference is not None and isinstance(cli.model, EvaluatedModule):
            found = cli.model.pair_outputs()
            if difference := reference.difference(found, is_16_bit=_is_16_bit(expectation.trial_folder)):
                return difference
            tolerance = max(tolerance, _TOLERANCE_WITH_OUTPUTS)
        # Other modules and data have no pairs that the served model could answer.
        has_pairs = isinstance(cli.model, TextAgent) and isinstance(cli.datamodule, PairDataModule)
        if has_pairs and (problem := _answers_problem(folder, cli, 10 * _tolerance(expectation.trial_folder))):
            return problem
    elif not expectation.trial_folder.best.is_file():
        return f"{expectation.trial_folder.best} was deleted, so there are no weights to compare its outputs with"
    else:
        value, expected = _output_difference(cli.model, loaded, expectation.trial_folder), 0.0
    if abs(value - expected) <= tolerance:
        return ""
    return f"its score is {value:.6f}, and was {expected:.6f} before it was logged"


def _logged_digests(folder: Path, seal: str) -> dict[str, str]:
    """Return the digests that `MLmodel` has. MLflow itself reads the file only after it was compared with the seal."""
    if seal != seal_of(folder) and (folder / MLMODEL).stat().st_size > _LARGEST_MLMODEL:
        return {}  # version 0.1.0, which sealed the digests only, wrote a few kilobytes
    model = read_yaml((folder / MLMODEL).read_text(encoding="utf-8"))
    found = (model.get("metadata") or {}).get(DIGEST) or {}
    return {name: digest for name, digest in found.items() if isinstance(name, str) and isinstance(digest, str)}


def _cli(trial_folder: TrialFolder) -> AgentCLI:
    # In the precision of the trial, if the CPU supports it: another one may change predictions close to a threshold. A
    # CPU without bf16 emulates it several times slower than float32.
    precision = "bf16-mixed" if "bf16" in _precision(trial_folder) and computes_bf16() else "32-true"
    return rebuild_trial(trial_folder, accelerator="cpu", precision=precision)


def _answers_problem(folder: Path, cli: AgentCLI, tolerance: float) -> str:
    """Return the first difference between answers of the served model and of the scored network, or an empty text."""
    import mlflow.pyfunc

    dataset = cli.datamodule.val_dataloader().dataset
    batch = dataset[len(dataset) - 1]  # the shortest posts
    loader: DataLoader[Any] = DataLoader(cast(Any, [batch]), batch_size=None, collate_fn=unchanged)
    (expected,) = cli.trainer.predict(cli.model, loader) or [[]]
    posts = [cli.datamodule.corpus.posts[post_id] for post_id in batch["post_ids"]]
    rows = pd.DataFrame({"criterion": batch["criteria"], "post": posts})
    found = mlflow.pyfunc.load_model(str(folder)).predict(rows).to_dict("records")
    keys = [key for key in ("probability", "score") if key in found[0]]
    for answer, wanted in zip(found, cast(list[dict[str, Any]], expected), strict=True):
        for key in keys:
            if abs(answer[key] - wanted[key]) > tolerance * (1 + abs(wanted[key])):
                return f"the served model answers {key} {answer[key]:.6f}, and the scored network {wanted[key]:.6f}"
    return ""


def _output_difference(model: Any, loaded: nn.Module, trial_folder: TrialFolder) -> float:
    """Compare a custom module, with the best weights of its trial, and the loaded one on the example input."""
    model.load_state_dict(load_weights(trial_folder.best))
    model.eval()
    with torch.no_grad():
        return float((model(model.example_input_array) - loaded(model.example_input_array)).abs().max())


class _Network(nn.Module):
    """Wrapper that hides the module of an exported program, whose `train()` and `eval()` raise, from Lightning."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._hidden = (module,)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the hidden module."""
        result: torch.Tensor = self._hidden[0](*inputs)
        return result
