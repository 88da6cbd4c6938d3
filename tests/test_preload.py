"""Imports of the fork server."""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from mlflow.utils import requirements_utils

from lightning_hpo.serving.flavor import save_model
from lightning_hpo.study.workers import LocalWorkers
from tests.foreign import ForeignModule


def _save(folder: Path, pipe: Connection) -> None:
    """Save a model in the process of a trial; send what was imported for it, and whether the server has used a GPU."""
    import lightning_hpo.preload  # in the server already, unless another test has started one without it

    del lightning_hpo
    before, listed = set(sys.modules), requirements_utils._MODULES_TO_PACKAGES is not None
    save_model(str(folder / "model"), module=ForeignModule())
    pipe.send((listed, sorted(set(sys.modules) - before), torch.cuda._is_in_bad_fork()))


def test_saving_a_model_imports_nothing_and_lists_no_packages_again(tmp_path: Path) -> None:
    assert LocalWorkers(1).call(_save, tmp_path, log=tmp_path / "log.txt") == (True, [], False)
    assert (tmp_path / "model/MLmodel").exists()
