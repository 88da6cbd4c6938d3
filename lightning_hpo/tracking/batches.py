"""Batches of parameters, metrics and tags that keep MLflow's rules for names."""

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH

from lightning_hpo.tracking.errors import is_invalid

__all__ = ["allowed_keys", "log_each"]

_FORBIDDEN = re.compile(r"[^\w.\- :/]")

_Entity = TypeVar("_Entity", Metric, Param, RunTag)


def allowed_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return a name that MLflow allows for each key. No two are equal, and none reads as another path."""
    allowed: dict[str, str] = {}
    for key in keys:
        name = posixpath.normpath(_FORBIDDEN.sub("_", key)).lstrip("/")
        if name in ("", ".") or name.startswith(".."):
            name = f"_{name.lstrip('.')}"
        first, number = name[:MAX_ENTITY_KEY_LENGTH].rstrip("/"), 1
        name = first
        while name in allowed.values():
            number += 1
            name = f"{first[: MAX_ENTITY_KEY_LENGTH - 8]}_{number}"
        allowed[key] = name
    return allowed


def log_each(
    batch: Sequence[_Entity], log: Callable[[Sequence[_Entity]], object], on_invalid: Callable[[], None]
) -> None:
    """Log a batch; if MLflow refuses it as invalid, log each entity alone, so that the others arrive.

    Args:
        batch: The entities.
        log: Logs some of them in one request.
        on_invalid: Called before the second attempt; raises if the cause is not the entities.

    Raises:
        MlflowException: With the keys of the refused entities, after the others have been logged.
    """
    try:
        log(batch)
        return
    except MlflowException as error:
        if not is_invalid(error):
            raise
    on_invalid()
    refused = []
    for entity in batch:
        try:
            log([entity])
        except MlflowException as error:
            if not is_invalid(error):
                raise
            refused.append(f"{entity.key} ({next(iter(str(error).splitlines()), '')})")
    if refused:
        raise MlflowException("; ".join(refused), INVALID_PARAMETER_VALUE)
