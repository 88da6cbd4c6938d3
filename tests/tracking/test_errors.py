import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from requests import HTTPError, Response
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.tracking.errors import AWAY, cause_of, does_not_answer, is_invalid, one_line_errors
from tests.server import free_port
from tests.tracking.fake_server import PAGE, Reply, as_json, fake_server


def _error(address: str) -> Exception:
    try:
        MlflowClient(address, address).get_run("0" * 32)
    except AWAY as error:
        return error
    pytest.fail("the run was returned")


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ((401, PAGE), "answered with status 401 (Unauthorized)"),
        ((403, PAGE), "answered with status 403 (Forbidden)"),
        ((404, PAGE), "answered with status 404 (Not Found)"),
        ((500, PAGE), "answered with status 500 (Internal Server Error)"),
        ((503, PAGE), "answered with status 503 (Service Unavailable)"),
        ((200, PAGE), "answered with a page that is not MLflow's; check the address"),
        (as_json(200, run=7), "answered with a page that is not MLflow's; check the address"),
        (
            as_json(200, run={"info": {"run_id": 5}}),
            "answered with a page that is not MLflow's; check the address",
        ),
        (
            as_json(403, error_code="PERMISSION_DENIED", message="no rights\nin detail"),
            "refused: PERMISSION_DENIED: no rights",
        ),
        (
            as_json(404, error_code="RESOURCE_DOES_NOT_EXIST", message="no run"),
            "refused: RESOURCE_DOES_NOT_EXIST: no run",
        ),
    ],
)
def test_cause_of_a_reply(reply: Reply, cause: str) -> None:
    with fake_server(lambda path: reply) as address:
        error = _error(address)
    assert cause_of(error) == cause
    assert not does_not_answer(error)
    assert not is_invalid(error)


def test_only_a_server_without_a_reply_does_not_answer() -> None:
    error = _error(f"http://127.0.0.1:{free_port()}")
    assert does_not_answer(error)
    assert cause_of(error) == "does not answer"


def test_invalid_values_are_distinguished_from_a_proxy_that_refuses_everything() -> None:
    assert is_invalid(MlflowException("key", INVALID_PARAMETER_VALUE))
    with fake_server(lambda path: (400, PAGE)) as address:
        assert not is_invalid(_error(address))


def test_closed_connection_is_distinguished_from_silence() -> None:
    with fake_server(lambda path: None) as address:
        error = _error(address)
    assert cause_of(error) == "closed the connection without an answer"


def test_cause_is_the_status_of_an_artifact_store() -> None:
    response = Response()
    response.status_code = 507
    assert cause_of(HTTPError("url", response=response)) == "answered with status 507 (Insufficient Storage)"


def test_cause_has_no_password() -> None:
    with pytest.raises(SQLAlchemyError) as caught:
        sqlalchemy.create_engine("nosuch://me:secret@host/db").connect()
    assert "secret" not in cause_of(caught.value)
    assert cause_of(InputError("postgresql://me:secret@host: no")) == "postgresql://me:***@host: no"


def test_error_of_mlflow_is_one_line_for_a_command() -> None:
    with (
        fake_server(lambda path: (403, PAGE)) as address,
        pytest.raises(LightningHpoError) as caught,
        one_line_errors(),
    ):
        MlflowClient(address, address).get_run("0" * 32)
    assert str(caught.value) == "MLflow answered with status 403 (Forbidden)"
