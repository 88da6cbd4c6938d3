import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import optuna
import pytest
import sqlalchemy

from lightning_hpo.exceptions import InputError, LeaseLostError
from lightning_hpo.storage import lease as lease_module
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.lease import EXPIRES_S, Lease, Machine, held_lease, require_free
from tests.postgres import Postgres

OTHER = Machine("other", "a start", 7, "1")


class Clock:
    """The clocks of a database and of this machine, which a test sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        read = lease_module._read
        patch.setattr(lease_module, "_read", lambda connection, study: (read(connection, study)[0], self.now))
        patch.setattr(lease_module, "_uptime", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server.database("studies").replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def shared(request: pytest.FixtureRequest, storage_url: str) -> tuple[optuna.Study, optuna.Study]:
    """One study, opened by two machines."""
    url = storage_url if request.param == "SQLite" else request.getfixturevalue("postgres")
    name = f"study-{os.urandom(4).hex()}"
    return optuna.create_study(study_name=name, storage=url), optuna.load_study(study_name=name, storage=url)


def _held(study: optuna.Study) -> Any:
    return study.user_attrs.get(StudyKey.LEASE)


def test_only_one_machine_gets_the_lease(shared: tuple[optuna.Study, optuna.Study]) -> None:
    here, there = shared
    mine, others = Lease(), Lease(OTHER)
    mine.take(here)
    with pytest.raises(InputError, match=rf"process {os.getpid()} on \S+ is tuning {here.study_name}, as of \d s"):
        others.take(there)
    mine.release()
    assert _held(here) is None
    others.take(there)
    assert _held(here)["host"] == "other"
    for refused in (mine.take, require_free):
        with pytest.raises(InputError, match="process 7 on other is tuning"):
            refused(here)


@pytest.mark.parametrize("first", [True, False])
def test_of_two_machines_that_read_at_the_same_time_one_gets_it(
    shared: tuple[optuna.Study, optuna.Study], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    here, there = shared
    if not first:  # there is a lease, which has ended
        Lease(replace(OTHER, host="third")).take(there)
        monkeypatch.setattr(lease_module, "EXPIRES_S", 0.0)
    read = lease_module._read

    def read_before_the_other_writes(connection: sqlalchemy.Connection, study: optuna.Study) -> Any:
        found = read(connection, study)
        monkeypatch.setattr(lease_module, "_read", read)
        Lease(OTHER).take(there)
        return found

    monkeypatch.setattr(lease_module, "_read", read_before_the_other_writes)
    with pytest.raises(InputError, match="another process has just begun to tune"):
        Lease().take(here)
    assert _held(here)["host"] == "other"


def test_lease_of_a_dead_machine_ends(study: optuna.Study, clock: Clock) -> None:
    Lease(OTHER).take(study)
    clock.now += EXPIRES_S - 1
    with pytest.raises(InputError, match="its lease ends 180 s after the last renewal"):
        Lease().take(study)
    clock.now += 1
    Lease().take(study)
    assert _held(study)["pid"] == os.getpid()


def test_renewed_lease_does_not_end(study: optuna.Study, clock: Clock) -> None:
    lease = Lease(OTHER)
    lease.take(study)
    for _ in range(10):
        clock.now += EXPIRES_S / 2
        lease.renew()
    with pytest.raises(InputError):
        Lease().take(study)


def test_lease_is_not_renewed_more_often_than_needed(study: optuna.Study, clock: Clock) -> None:
    lease = Lease()
    lease.take(study)
    before = _held(study)
    clock.now += 20
    lease.renew()
    assert _held(study) == before
    clock.now += 20
    lease.renew()
    assert _held(study)["renewed"] == clock.now


@pytest.mark.parametrize("taken", [True, False])
def test_suspended_process_notices_that_another_machine_has_taken_over(
    study: optuna.Study, clock: Clock, taken: bool
) -> None:
    lease = Lease(OTHER)
    lease.take(study)
    clock.now += 2 * EXPIRES_S
    if not taken:
        lease.renew()  # nobody else wanted the study
        return
    Lease().take(study)
    with pytest.raises(
        LeaseLostError, match=rf"first is tuned by process {os.getpid()} on \S+ now, since this process"
    ):
        lease.renew()
    lease.release()
    assert _held(study)["pid"] == os.getpid()  # not taken from the other one


def test_process_of_this_machine_that_was_killed_holds_nothing(storage_url: str, study: optuna.Study) -> None:
    code = (
        "import optuna, sys\n"
        "from lightning_hpo.storage.lease import Lease\n"
        f"Lease().take(optuna.load_study(study_name='first', storage={storage_url!r}))\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"taken\n"
    with pytest.raises(InputError, match=f"process {process.pid} on"):
        Lease().take(study)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has exited, and its number is still in use
    Lease().take(study)
    process.communicate()


def test_number_of_a_process_that_was_used_again_holds_nothing(study: optuna.Study) -> None:
    Lease(replace(Machine.this(), started="1")).take(study)
    Lease().take(study)


@pytest.mark.parametrize("system", ["another start", ""])
def test_machine_of_the_same_name_is_another_one(study: optuna.Study, system: str) -> None:
    Lease(replace(Machine.this(), system=system, pid=2**22 + 1)).take(study)
    with pytest.raises(InputError):
        Lease().take(study)


def test_lease_of_an_earlier_call_in_this_process_holds_nothing(study: optuna.Study) -> None:
    Lease().take(study)
    Lease().take(study)


def test_lease_is_given_back_at_the_end(study: optuna.Study) -> None:
    with held_lease() as lease:
        lease.take(study)
        assert _held(study) is not None
    assert _held(study) is None


@pytest.mark.parametrize(("error", "held"), [(RuntimeError("away"), True), (InputError("--study.name: wrong"), False)])
def test_error_of_a_database_does_not_wait_for_it(study: optuna.Study, error: Exception, held: bool) -> None:
    def fail() -> None:
        with held_lease() as lease:
            lease.take(study)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (_held(study) is not None) == held


def test_storage_in_memory_needs_no_lease() -> None:
    study = optuna.create_study()
    with held_lease() as lease:
        lease.take(study)
        lease.renew()
    assert _held(study) is None


def test_imported_study_has_no_holder(study: optuna.Study) -> None:
    study.set_user_attr(StudyKey.LEASE, None)
    Lease().take(study)
    assert _held(study)["pid"] == os.getpid()
