"""How a model is registered: raw text in, labels or spans out, and the torch module beside it, both without pickle.

This is a flavor in MLflow's sense: `Model.log` calls `save_model`. A saved model holds its weights once, as a program
of torch.export that both `mlflow.pytorch.load_model` and the pyfunc read; beside it lie the tokenizer, `serving.json`,
which says how texts become windows and logits become answers, and the code that does so. It needs public packages only.
"""

import importlib.metadata
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import mlflow
import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from torch import Tensor, nn

from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.spans.decoding import Decoding
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.serving.bundled_code import write_served_code
from lightning_hpo.serving.checksums import DIGEST, file_digests, seal
from lightning_hpo.serving.text_model import COLUMNS, INPUTS, MLMODEL, SETTINGS, TOKENIZER, ServingSettings

__all__ = ["log_model", "save_model", "saved_decoding"]

_TEXTS = "texts"
_REQUIRED = ("mlflow", "torch", "numpy", "pandas")
_EXAMPLE = "I have been too tired to get up since the start of the week."


class TextData(Protocol):
    """What is read of a data module: how it makes windows of texts."""

    tokenizer: str
    max_length: int
    stride: int
    corpus: Any


def log_model(
    module: LightningModule,
    datamodule: TextData | Any | None = None,
    *,
    run_id: str,
    tracking_uri: str | None = None,
    name: str = "model",
    step: int = 0,
) -> str:
    """Log a trained module as a model of a run, with the weights that it has now.

    Args:
        module: One of the agents, or any LightningModule with an `example_input_array`.
        datamodule: The data module that an agent was trained with.
        run_id: The run that the model belongs to.
        tracking_uri: Where runs are recorded; None: where MLflow is set to.
        name: The model's name in its run.
        step: The epoch of the weights.

    Returns:
        The model's URI, to register or to load.

    Raises:
        LightningHpoError: If something is missing, or torch cannot export the module.
    """
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri or before)
    try:
        client = mlflow.MlflowClient()
        # Made here: MLflow would put it into the process's current experiment, beside nothing that belongs to it.
        experiment_id = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
        info = Model.log(
            artifact_path=None,
            name=name,
            flavor=sys.modules[__name__],
            run_id=run_id,
            model_id=model.model_id,
            step=step,
            module=module,
            datamodule=datamodule,
            validate_serving_input=False,
        )
        client.set_logged_model_tags(model.model_id, {DIGEST: seal((info.metadata or {})[DIGEST])})
    finally:
        mlflow.set_tracking_uri(before)
    return str(info.model_uri)


def saved_decoding(folder: str | Path) -> Decoding:
    """Give how a saved model of the evidence agent reads answers from logits, its calibrated threshold included.

    Args:
        folder: The model's, as MLflow has downloaded it.
    """
    settings = Path(folder, "data", _TEXTS, SETTINGS).read_text(encoding="utf-8")
    return Decoding.read(json.loads(settings)["decoding"])


def save_model(
    path: str,
    mlflow_model: Model | None = None,
    *,
    module: LightningModule,
    datamodule: TextData | Any | None = None,
    validate_serving_input: bool = False,  # noqa: ARG001 - Model.log hands on what it was given
) -> None:
    """Save a module as an MLflow model in a new folder.

    Args:
        path: The folder; there must be none yet.
        mlflow_model: What is known of the model already.
        module: One of the agents, or any LightningModule with an `example_input_array`.
        datamodule: The data module that an agent was trained with.
        validate_serving_input: For MLflow alone.

    Raises:
        LightningHpoError: If something is missing, or torch cannot export the module.
    """
    mlflow_model = mlflow_model or Model()
    with _at_rest(module), _quiet_mlflow():
        if isinstance(module, TextAgent):
            _save_agent(Path(path), mlflow_model, module, _checked(module, datamodule))
        else:
            _save_foreign(path, mlflow_model, module)
        mlflow_model.metadata = {**(mlflow_model.metadata or {}), DIGEST: file_digests(Path(path))}
        mlflow_model.save(str(Path(path, MLMODEL)))


def _save_agent(path: Path, mlflow_model: Model, agent: TextAgent, data: TextData) -> None:
    # Beside the target, so that moving the weights into it is no copy.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet_transformers():
        texts, exported = Path(folder, _TEXTS), Path(folder, "network")
        tokenizer = load_tokenizer(data.tokenizer)
        settings = _settings(agent, data, PairTemplate.of(tokenizer))
        tokenizer.save_pretrained(texts / TOKENIZER)
        (texts / SETTINGS).write_text(json.dumps(asdict(settings), ensure_ascii=False, indent=2), encoding="utf-8")
        names = [name for name in INPUTS if name != "token_type_ids" or name in tokenizer("probe", "probe")]
        # Two rows: torch.export takes a dimension of one for a constant.
        network = _export(agent.served_network, tuple(torch.ones(2, 16, dtype=torch.long) for _ in names), exported)
        code, loader = write_served_code(Path(folder))
        mlflow.pyfunc.save_model(
            str(path),
            loader_module=loader,
            code_paths=[str(code)],
            data_path=str(texts),
            mlflow_model=mlflow_model,
            signature=_signature(settings),
            input_example=_example(settings),
            pip_requirements=_requirements("tokenizers"),
        )
        _add_network(path, mlflow_model, exported, network)


def _save_foreign(path: str, mlflow_model: Model, module: LightningModule) -> None:
    example = module.example_input_array
    inputs = example if isinstance(example, tuple) else (example,)
    if not all(isinstance(value, Tensor) for value in inputs):
        raise LightningHpoError(
            f"{type(module).__name__} cannot be logged as a model: it has no `example_input_array`; set it to the"
            " tensor, or tuple of tensors, that its forward takes"
        )
    _export(module, cast(tuple[Tensor, ...], inputs), Path(path), mlflow_model)


def _export(
    network: nn.Module, inputs: tuple[Tensor, ...], path: Path, mlflow_model: Model | None = None
) -> dict[str, Any]:
    """Save a network as MLflow saves torch modules, without pickle; give what MLflow wrote down about it."""
    mlflow_model = mlflow_model or Model()
    free = [(-1, *value.shape[1:]) if value.is_floating_point() else (-1,) * value.ndim for value in inputs]
    specs: list[ColSpec | TensorSpec] = [
        TensorSpec(
            np.dtype(str(value.dtype).removeprefix("torch.")), shape, f"input_{place}" if len(inputs) > 1 else None
        )
        for place, (value, shape) in enumerate(zip(inputs, free, strict=True))
    ]
    try:
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=mlflow_model,
            signature=ModelSignature(inputs=Schema(specs)),
            input_example=tuple(value.cpu() for value in inputs),
            pip_requirements=_requirements(),
            serialization_format="pt2",
        )
    # torch.export raises whatever the operation that it cannot follow raises.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise LightningHpoError(
            f"{type(network).__name__} cannot be logged as a model: torch.export says {type(error).__name__}: {reason}"
        ) from error
    flavor: dict[str, Any] = mlflow_model.flavors[mlflow.pytorch.FLAVOR_NAME]
    return flavor


def _add_network(path: Path, mlflow_model: Model, exported: Path, flavor: dict[str, Any]) -> None:
    data = path / flavor["model_data"]
    for file in (exported / flavor["model_data"]).iterdir():
        shutil.move(file, data / file.name)
    mlflow_model.add_flavor(mlflow.pytorch.FLAVOR_NAME, **flavor)
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Keep a module on the CPU and in eval mode, and put it back as it was."""
    modes = [(part, part.training) for part in module.modules()]
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    module.eval().cpu()
    try:
        with torch.no_grad():
            yield
    finally:
        module.to(device)
        for part, training in modes:
            part.training = training


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Keep what MLflow has to say about each step off the display, but not its warnings."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _checked(agent: TextAgent, data: Any) -> TextData:
    wanted = ("tokenizer", "max_length", "stride", "corpus")
    missing = [name for name in wanted if not hasattr(data, name)]
    if missing:
        given = "no data module" if data is None else type(data).__name__
        raise LightningHpoError(
            f"{type(agent).__name__} cannot be logged as a model that reads text: {given} was given, without "
            f"{', '.join(missing)}; give the data module that it was trained with"
        )
    return cast(TextData, data)


def _settings(agent: TextAgent, data: TextData, template: PairTemplate) -> ServingSettings:
    decoding = getattr(agent, "decoding", None)
    return ServingSettings(
        agent=agent.agent,
        criteria=dict(data.corpus.criteria),
        max_length=data.max_length,
        stride=data.stride,
        template=asdict(template),
        precision="32-true" if agent._trainer is None else str(agent.trainer.precision),
        decoding=asdict(decoding) if isinstance(decoding, Decoding) else None,
    )


def _signature(settings: ServingSettings) -> ModelSignature:
    # Not required by MLflow, whose error would quote the whole input: the model itself says what is missing.
    asked: list[ColSpec | TensorSpec] = [ColSpec("string", name, required=False) for name in COLUMNS]
    params = settings.params
    answers = settings.answers(int(params.get("top_k", 1)))
    answered: list[ColSpec | TensorSpec] = [ColSpec(kind, name) for name, kind in answers.items()]
    taken = [ParamSpec(name, "long" if isinstance(value, int) else "double", value) for name, value in params.items()]
    return ModelSignature(inputs=Schema(asked), outputs=Schema(answered), params=ParamSchema(taken))


def _example(settings: ServingSettings) -> pd.DataFrame:
    return pd.DataFrame([(next(iter(settings.criteria)), _EXAMPLE)], columns=list(COLUMNS))


def _requirements(*further: str) -> list[str]:
    versions = {name: importlib.metadata.version(name) for name in (*_REQUIRED, *further)}
    return [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]
