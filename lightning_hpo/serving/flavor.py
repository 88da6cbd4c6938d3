"""MLflow flavor of the models: a pyfunc for raw text and the torch module, both without pickle.

`Model.log` calls `save_model`. A saved model consists of

- the weights, as one program of torch.export that both `mlflow.pytorch.load_model` and the pyfunc read;
- the tokenizer;
- `serving.json`: the settings of the windows and of the decoding;
- the source code of the pyfunc, which imports public packages only.
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
from typing import Any, NamedTuple, cast

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

from lightning_hpo.agents.met_agent import MetAgent
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.pair_decoding import MetDecision
from lightning_hpo.agents.span_agent import SpanAgent
from lightning_hpo.agents.spans.decoding import Decoding
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.serving.bundled_code import write_bundled_code
from lightning_hpo.serving.checksums import DIGEST, MLMODEL, file_digests, seal_of
from lightning_hpo.serving.text_model import COLUMNS, DEVICE, SETTINGS, TOKENIZER, ServingSettings

__all__ = ["LoggedModel", "export_network", "log_model", "restore_decision", "save_model"]

_TEXTS = "texts"
_DATA_ATTRIBUTES = ("tokenizer", "max_length", "stride", "corpus")
_REQUIRED = ("mlflow", "torch", "numpy", "pandas")
_EXAMPLE = "I have been too tired to get up since the start of the week."


class LoggedModel(NamedTuple):
    """A model in MLflow.

    Attributes:
        uri: Its URI.
        seal: Its seal, which `checksums` explains.
    """

    uri: str
    seal: str


def log_model(
    module: LightningModule,
    datamodule: Any = None,
    *,
    run_id: str,
    tracking_uri: str | None = None,
    name: str = "model",
    step: int = 0,
) -> LoggedModel:
    """Log a trained module, with its current weights, as a model of an MLflow run.

    Args:
        module: One of the agents, or any LightningModule with an `example_input_array`.
        datamodule: The data module that an agent was trained with.
        run_id: ID of the run.
        tracking_uri: MLflow's database or server. None uses MLflow's current tracking URI.
        name: Name of the model in the run.
        step: Epoch of the weights.

    Raises:
        LightningHpoError: If the data module or the example input is missing, or torch cannot export the module.
    """
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri or previous)
    try:
        client = mlflow.MlflowClient()
        # `Model.log` would create it in the process's current experiment, not in the experiment of the run.
        experiment_id = client.get_run(run_id).info.experiment_id
        model_id = client.create_logged_model(experiment_id, name=name, source_run_id=run_id).model_id
        where = {"artifact_path": None, "name": name, "run_id": run_id, "model_id": model_id, "step": step}
        seals: list[str] = []
        arguments = {"module": module, "datamodule": datamodule, "validate_serving_input": False, "seals": seals}
        info = Model.log(flavor=sys.modules[__name__], **where, **arguments)
        client.set_logged_model_tags(model_id, {DIGEST: seals[0]})
    finally:
        mlflow.set_tracking_uri(previous)
    return LoggedModel(str(info.model_uri), seals[0])


def restore_decision(folder: str | Path, agent: TextAgent) -> None:
    """Give an agent what a downloaded model has fitted: the null threshold, or the temperature and the thresholds."""
    settings = ServingSettings(**json.loads(Path(folder, "data", _TEXTS, SETTINGS).read_text(encoding="utf-8")))
    if isinstance(agent, SpanAgent):
        agent.decoding = Decoding.read(settings.decoding)
    if isinstance(agent, MetAgent):
        agent.decision = settings.decision(settings.threshold)


def save_model(
    path: str,
    mlflow_model: Model | None = None,
    *,
    module: LightningModule,
    datamodule: Any = None,
    validate_serving_input: bool = False,  # noqa: ARG001 - Model.log passes it on
    seals: list[str] | None = None,
) -> None:
    """Save a module as an MLflow model in a new folder. `mlflow_model` is the metadata to extend.

    `log_model` explains the other arguments. MLflow passes `validate_serving_input` to every flavor; it is ignored. The
    seal of the model is appended to `seals`, because MLflow passes no results of a flavor on.

    Raises:
        LightningHpoError: If the data module or the example input is missing, or torch cannot export the module.
    """
    mlflow_model = mlflow_model or Model()
    with _evaluating(module), _quiet_mlflow():
        if isinstance(module, TextAgent):
            _check_data(module, datamodule)
            _save_agent(Path(path), mlflow_model, module, datamodule)
        else:
            _save_custom_module(path, mlflow_model, module)
        mlflow_model.metadata = {**(mlflow_model.metadata or {}), DIGEST: file_digests(Path(path))}
        mlflow_model.save(str(Path(path, MLMODEL)))
        if seals is not None:
            seals.append(seal_of(Path(path)))


def _save_agent(path: Path, mlflow_model: Model, agent: TextAgent, data: Any) -> None:
    # In the folder of the target, so that the weights are moved and not copied.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet_transformers():
        texts, exported = Path(folder, _TEXTS), Path(folder, "network")
        tokenizer = load_tokenizer(data.tokenizer, getattr(data, "tokenizer_revision", None))
        settings = _settings(agent, data, PairTemplate.of(tokenizer))
        tokenizer.save_pretrained(texts / TOKENIZER)
        (texts / SETTINGS).write_text(json.dumps(asdict(settings), ensure_ascii=False, indent=2), encoding="utf-8")
        network = export_network(cast(TextNetwork, agent.served_network), tokenizer, exported)
        code, loader = write_bundled_code(Path(folder))
        mlflow.pyfunc.save_model(
            str(path),
            loader_module=loader,
            code_paths=[str(code)],
            data_path=str(texts),
            mlflow_model=mlflow_model,
            signature=_signature(settings),
            input_example=pd.DataFrame([(next(iter(settings.criteria)), _EXAMPLE)], columns=list(COLUMNS)),
            pip_requirements=_requirements("regex", "tokenizers"),
        )
        weights = path / network["model_data"]
        for file in (exported / network["model_data"]).iterdir():
            shutil.move(file, weights / file.name)
        mlflow_model.add_flavor(mlflow.pytorch.FLAVOR_NAME, **network)
        mlflow_model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def export_network(network: TextNetwork, tokenizer: Any, path: Path) -> dict[str, Any]:
    """Save an agent's network with `mlflow.pytorch`, and return the flavor's entry in `MLmodel`.

    Raises:
        LightningHpoError: If torch cannot export the network.
    """
    inputs = network.example_inputs(types="token_type_ids" in tokenizer("probe", "probe"))
    with _quiet_mlflow(), torch.no_grad():
        return _export(network, inputs, path)


def _save_custom_module(path: str, mlflow_model: Model, module: LightningModule) -> None:
    example = module.example_input_array
    inputs = example if isinstance(example, tuple) else (example,)
    if not all(isinstance(value, Tensor) for value in inputs):
        raise LightningHpoError(
            f"{type(module).__name__} cannot be logged as a model: it has no `example_input_array`; set it to the"
            " tensor, or tuple of tensors, that `forward` expects"
        )
    _export(module, cast(tuple[Tensor, ...], inputs), Path(path), mlflow_model)


def _export(
    network: nn.Module, inputs: tuple[Tensor, ...], path: Path, mlflow_model: Model | None = None
) -> dict[str, Any]:
    """Save a network with `mlflow.pytorch`, without pickle, and return the flavor's entry in `MLmodel`."""
    mlflow_model = mlflow_model or Model()
    try:
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=mlflow_model,
            signature=ModelSignature(inputs=Schema(_tensor_specs(inputs))),
            input_example=tuple(value.cpu() for value in inputs),
            pip_requirements=_requirements(),
            serialization_format="pt2",
        )
    # torch.export passes on any exception of an operation that it cannot trace.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise LightningHpoError(
            f"{type(network).__name__} cannot be logged as a model: torch.export raised {type(error).__name__}: "
            f"{reason}"
        ) from error
    flavor: dict[str, Any] = mlflow_model.flavors[mlflow.pytorch.FLAVOR_NAME]
    return flavor


def _tensor_specs(inputs: tuple[Tensor, ...]) -> list[ColSpec | TensorSpec]:
    """Return the signature of tensors: any number of rows, and any length of token ids."""
    shapes = [(-1, *value.shape[1:]) if value.is_floating_point() else (-1,) * value.ndim for value in inputs]
    names = [None] if len(inputs) == 1 else [f"input_{place}" for place in range(len(inputs))]
    kinds = [np.dtype(str(value.dtype).removeprefix("torch.")) for value in inputs]
    return [TensorSpec(*spec) for spec in zip(kinds, shapes, names, strict=True)]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Move a module to the CPU and into eval mode, and restore its device and modes afterwards."""
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
    """Silence MLflow's INFO messages, but not its warnings."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_data(agent: TextAgent, data: Any) -> None:
    missing = [name for name in _DATA_ATTRIBUTES if not hasattr(data, name)]
    if missing:
        got = "no data module" if data is None else f"{type(data).__name__}, which has no {', '.join(missing)}"
        raise LightningHpoError(
            f"{type(agent).__name__} cannot be logged as a model: got {got}; pass the data module that trained it"
        )


def _settings(agent: TextAgent, data: Any, template: PairTemplate) -> ServingSettings:
    decision = agent.decision if isinstance(agent, MetAgent) else MetDecision()
    return ServingSettings(
        agent=agent.agent,
        criteria=dict(data.corpus.criteria),
        form=agent.form,
        max_length=data.max_length,
        stride=data.stride,
        template=asdict(template),
        precision=_precision(agent),
        threshold=decision.threshold,
        temperature=decision.temperature,
        thresholds=dict(decision.by_criterion),
        decoding=asdict(agent.decoding) if isinstance(agent, SpanAgent) else None,
    )


def _precision(agent: TextAgent) -> str:
    try:
        return str(agent.trainer.precision)
    except RuntimeError:  # the agent has no Trainer
        return "32-true"


def _signature(settings: ServingSettings) -> ModelSignature:
    # The columns are optional for MLflow, whose error would quote the whole input. `TextModel` reports missing ones.
    inputs: list[ColSpec | TensorSpec] = [ColSpec("string", name, required=False) for name in COLUMNS]
    params = settings.params
    columns = settings.outputs(int(params.get("top_k", 1)))
    outputs: list[ColSpec | TensorSpec] = [ColSpec(kind, name) for name, kind in columns.items()]
    specs = [ParamSpec(name, "long" if isinstance(value, int) else "double", value) for name, value in params.items()]
    specs.append(ParamSpec(DEVICE, "string", ""))
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=ParamSchema(specs))


def _requirements(*extra: str) -> list[str]:
    versions = {name: importlib.metadata.version(name) for name in (*_REQUIRED, *extra)}
    return [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]
