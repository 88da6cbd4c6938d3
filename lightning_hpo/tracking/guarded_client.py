"""MLflow's client for a tracking server that need not be trusted.

A server names places of artifacts, redirects requests, and sends answers of any size and type. The import of this
module limits what MLflow does with them in this process.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import mlflow.utils.rest_utils
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from lightning_hpo.tracking.errors import AWAY
from lightning_hpo.tracking.locations import location_problem

__all__ = ["guarded_client"]

_ENVIRONMENT = {
    # By default, MLflow tries for minutes to reach a server, and training would wait.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A server could make MLflow send requests to any host: by a redirect, or by addresses for parts of large files.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Variables that MLflow reads at each request. The user's values take precedence."""

_MOST_BYTES = 256 * 1024 * 1024
"""Size of an answer, files excepted. A thousand runs have some ten megabytes."""
_MOST_SECONDS = 120.0
_MOST_REQUESTS = 2000
"""Requests of one call: a server could name a next page for ever."""
_MOST_FOLDERS = 1000
"""Folders in the artifacts of one run or model."""
_CHUNK = 1024 * 1024

_calls = threading.local()


def guarded_client(uri: str) -> MlflowClient:
    """Return a client that raises only exceptions of `AWAY`, however wrong an answer is.

    Args:
        uri: A database URL or a tracking server.
    """
    return cast(MlflowClient, _GuardedClient(MlflowClient(tracking_uri=uri, registry_uri=uri)))


class _GuardedClient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return _guarded(found) if callable(found) else found


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        _calls.left = _MOST_REQUESTS
        try:
            return method(*arguments, **named)
        except AWAY:
            raise
        except Exception as error:
            # MLflow reads an answer without a look at the types of its fields.
            raise MlflowException(f"its answer cannot be read ({type(error).__name__})") from error
        finally:
            _calls.left = None

    return call


def _guard_requests() -> None:
    """Limit the size and the time of answers, and refuse redirects."""
    module: Any = mlflow.utils.rest_utils
    send = module._get_http_response_with_retries

    def limited(method: str, url: str, *arguments: Any, stream: bool = False, **named: Any) -> requests.Response:
        _count_request()
        response: requests.Response = send(method, url, *arguments, stream=True, **named)
        if response.is_redirect:
            response.close()
            raise MlflowException("it redirects to another address; if that is right, use it as the server's address")
        if not stream:
            _read(response)
        return response

    module._get_http_response_with_retries = limited


def _count_request() -> None:
    left = getattr(_calls, "left", None)
    if left is not None:
        if left == 0:
            raise MlflowException(f"it sends more than {_MOST_REQUESTS} pages")
        _calls.left = left - 1


def _read(response: requests.Response) -> None:
    """Read the body of a response into it, as `requests` does without a stream."""
    body, end = bytearray(), time.monotonic() + _MOST_SECONDS
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > _MOST_BYTES or time.monotonic() > end:
            response.close()
            raise MlflowException(f"its answer has no end after {len(body):,} bytes")
    response._content = bytes(body)


def _guard_artifacts() -> None:
    """Limit where MLflow reads and writes what a server names, and how many folders of it are listed."""
    registry: Any = artifact_repository_registry._artifact_repository_registry
    get = registry.get_artifact_repository

    def limited(
        artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> ArtifactRepository:
        # Without a tracking URI, the location is from the caller and not from a server.
        if tracking_uri is not None and (problem := location_problem(artifact_uri, tracking_uri)):
            raise MlflowException(problem)
        return _with_limited_folders(get(artifact_uri, tracking_uri, registry_uri))

    registry.get_artifact_repository = limited


def _with_limited_folders(repository: Any) -> ArtifactRepository:
    listed, left = repository.list_artifacts, iter(range(_MOST_FOLDERS))

    def limited(path: str | None = None) -> Any:
        if next(left, None) is None:
            raise MlflowException(f"it lists more than {_MOST_FOLDERS} folders of artifacts")
        return listed(path)

    repository.list_artifacts = limited
    return cast(ArtifactRepository, repository)


for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
_guard_requests()
_guard_artifacts()
