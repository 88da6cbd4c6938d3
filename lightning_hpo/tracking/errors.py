"""Errors of MLflow: what went wrong, and whether a request can ever be accepted."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
from google.protobuf.json_format import ParseError
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = [
    "AWAY",
    "ArtifactError",
    "cause_of",
    "does_not_answer",
    "is_invalid",
    "is_missing",
    "one_line_errors",
    "reason_of",
]

AWAY = (MlflowException, SQLAlchemyError, OSError, InputError, ParseError)
"""Exceptions that are raised if MLflow cannot be reached or does not accept a request."""

# MLflow names the status of a reply only in the message of its exception.
_STATUS = re.compile(r"failed with error code (\d{3})\b|too many (\d{3}) error responses")
_INVALID = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
_NO_REPLY = (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError)
_ABORTED = "Connection aborted"
_NO_JSON = "not in a valid JSON format"
_LONGEST = 500  # a server may send any text
_OTHER_PAGE = "answered with a page that is not MLflow's; check the address"


class ArtifactError(OSError):
    """An artifact cannot be written. Parameters, metrics and tags are not affected."""


def cause_of(error: BaseException) -> str:
    """Return a clause with "MLflow" as its subject, such as "does not answer", in one line without passwords."""
    reason = reason_of(error)
    if _status(error) is not None or does_not_answer(error) or reason == _OTHER_PAGE:
        return reason
    if isinstance(error, InputError | ArtifactError):
        return reason
    return f"{'failed' if isinstance(error, OSError) else 'refused'}: {reason}"


def reason_of(error: BaseException) -> str:
    """Like `cause_of`, but without "failed:" or "refused:" before the error's own message."""
    status = _status(error)
    if status is not None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown"
        return f"answered with status {status} ({phrase})"
    if does_not_answer(error):
        # A server that refuses an upload before it has read all of it looks the same as one that was killed.
        aborted = any(_ABORTED in str(link) for link in _chain(error))
        return "closed the connection without an answer" if aborted else "does not answer"
    strerror = error.strerror if isinstance(error, OSError) else None
    text = masked(strerror or str(getattr(error, "orig", None) or error)).strip()
    if _NO_JSON in text or isinstance(error, ParseError):
        return _OTHER_PAGE
    line = next(iter(text.splitlines()), "") or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise errors of MLflow as a `LightningHpoError` of one line."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ArtifactError, ParseError) as error:
        raise LightningHpoError(f"MLflow {cause_of(error)}") from error


def does_not_answer(error: BaseException) -> bool:
    """Return whether there was no reply at all."""
    if _status(error) is not None:
        return False
    return any(isinstance(link, _NO_REPLY) for link in _chain(error))


def is_invalid(error: BaseException) -> bool:
    """Return whether MLflow has understood a request and would never accept it."""
    return isinstance(error, MlflowException) and error.error_code in _INVALID and _status(error) is None


def is_missing(error: BaseException) -> bool:
    """Return whether MLflow has answered that a run does not exist or is in its trash."""
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of a reply that contains no MLflow error."""
    for link in _chain(error):
        if isinstance(link, requests.HTTPError) and link.response is not None:
            return int(link.response.status_code)
        if isinstance(link, MlflowException) and (found := _STATUS.search(str(link))):
            return int(found[1] or found[2])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
