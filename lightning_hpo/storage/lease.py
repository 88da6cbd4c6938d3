"""Lease of a study: at most one process tunes it, also among machines that share Optuna's database.

The lease is an attribute of the study. It is replaced only as it was read, in one statement, so that of two processes
one gets it. Its times are those of the database: the clocks of two machines are never compared.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from lightning_hpo.exceptions import InputError, LeaseLostError, StorageAwayError
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.optuna_private import STUDY_ATTRIBUTES, engine_of, study_id_of

__all__ = ["EXPIRES_S", "Lease", "Machine", "held_lease", "require_free"]

EXPIRES_S = 180.0
"""Seconds without a renewal after which a lease of another machine has ended."""
_RENEWED_EVERY_S = 30.0
_KEY, _VALUE = STUDY_ATTRIBUTES.c.key, STUDY_ATTRIBUTES.c.value_json


@dataclass(frozen=True)
class Machine:
    """A process, and the running system that it belongs to.

    Args:
        host: Name of the host.
        system: Id of the start of the operating system and, in a container, of its processes; empty if unknown.
        pid: Number of the process.
        started: Start of the process, which tells it from a later one of that number.
    """

    host: str
    system: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Machine":
        """Return this process."""
        return cls(socket.gethostname(), _system(), os.getpid(), _start_of(os.getpid()))

    def has_exited(self, here: "Machine") -> bool:
        """Return whether the process is known to have exited, as seen from another process.

        Only a process of the same running system can be looked up: two machines may have the same name.
        """
        return self.system == here.system != "" and _start_of(self.pid) != self.started


class Lease:
    """Lease of a study for this process.

    Args:
        machine: This process; another one only in tests.
    """

    def __init__(self, machine: Machine | None = None) -> None:
        self._machine = machine or Machine.this()
        self._token = uuid4().hex
        self._study: optuna.Study | None = None
        self._mine = ""
        self._renewed = 0.0

    def take(self, study: optuna.Study) -> None:
        """Take the lease of a study.

        Raises:
            InputError: If another process holds it.
        """
        engine = engine_of(study)
        if engine is None:
            return
        with engine.begin() as connection:
            stored, now = _read(connection, study)
            _require_free(study, stored, now, self._machine)
            if not self._replace(connection, study, stored, now):
                raise InputError(
                    f"--study.name: another process has just begun to tune {study.study_name}; wait until it exits"
                )
        self._study = study

    def renew(self) -> None:
        """Renew the lease if it is time to.

        Raises:
            LeaseLostError: If another process holds the lease: this one was suspended or cut off for too long.
        """
        if self._study is None or _uptime() - self._renewed < _RENEWED_EVERY_S:
            return
        engine = engine_of(self._study)
        assert engine is not None
        with engine.begin() as connection:
            stored, now = _read(connection, self._study)
            if stored == self._mine and self._replace(connection, self._study, stored, now):
                return
        holder = _parsed(stored)
        who = "another process" if holder is None else f"process {holder['pid']} on {holder['host']}"
        raise LeaseLostError(
            f"{self._study.study_name} is tuned by {who} now, since this process was suspended or cut off from "
            f"Optuna's database for more than {EXPIRES_S:.0f} s; its trials were killed, and nothing was recorded"
        )

    def release(self) -> None:
        """Give the lease back, if this process still holds it."""
        study, self._study = self._study, None
        engine = None if study is None else engine_of(study)
        if study is not None and engine is not None:
            with engine.begin() as connection:
                connection.execute(sqlalchemy.delete(STUDY_ATTRIBUTES).where(*_of(study), self._mine == _VALUE))

    def _replace(self, connection: sqlalchemy.Connection, study: optuna.Study, stored: str | None, now: float) -> bool:
        """Replace what was read. Return False if another process has replaced it meanwhile."""
        value = json.dumps({"token": self._token, **asdict(self._machine), "renewed": now})
        if stored is None:
            row = {"study_id": study_id_of(study), "key": StudyKey.LEASE, "value_json": value}
            try:
                connection.execute(sqlalchemy.insert(STUDY_ATTRIBUTES).values(row))
            except IntegrityError:
                return False
        else:
            update = sqlalchemy.update(STUDY_ATTRIBUTES).where(*_of(study), stored == _VALUE).values(value_json=value)
            if connection.execute(update).rowcount != 1:
                return False
        self._mine, self._renewed = value, _uptime()
        return True


@contextmanager
def held_lease() -> Iterator[Lease]:
    """Provide a lease that is given back at the end of the block, or if the input was wrong.

    After another error the database may be away, and giving back would wait for it. The next command on this machine
    sees that this process has exited, and on another machine the lease ends by itself.
    """
    lease = Lease()
    try:
        yield lease
    except InputError:
        lease.release()
        raise
    with suppress(SQLAlchemyError, StorageAwayError):
        lease.release()


def require_free(study: optuna.Study) -> None:
    """Check that no other process holds the lease of a study. Nothing is written.

    Raises:
        InputError: If another process holds it.
    """
    engine = engine_of(study)
    if engine is not None:
        with engine.connect() as connection:
            _require_free(study, *_read(connection, study), Machine.this())


def _require_free(study: optuna.Study, stored: str | None, now: float, here: Machine) -> None:
    holder = _parsed(stored)
    # A lease that this process has not given back is of an earlier call: the lock of the folder is held by now.
    if holder is None or now - holder["renewed"] >= EXPIRES_S or _machine(holder) == here:
        return
    if _machine(holder).has_exited(here):
        return
    raise InputError(
        f"--study.name: process {holder['pid']} on {holder['host']} is tuning {study.study_name}, as of "
        f"{now - holder['renewed']:.0f} s ago; stop it there, or wait: if that machine is dead, its lease ends "
        f"{EXPIRES_S:.0f} s after the last renewal"
    )


def _read(connection: sqlalchemy.Connection, study: optuna.Study) -> tuple[str | None, float]:
    """Return the stored lease, and the time of the database in seconds since 1970."""
    stored = connection.execute(sqlalchemy.select(_VALUE).where(*_of(study))).scalar()
    now: datetime = connection.execute(sqlalchemy.select(sqlalchemy.func.current_timestamp())).scalar_one()
    return stored, (now if now.tzinfo else now.replace(tzinfo=UTC)).timestamp()


def _of(study: optuna.Study) -> tuple[Any, Any]:
    return STUDY_ATTRIBUTES.c.study_id == study_id_of(study), _KEY == StudyKey.LEASE


def _parsed(stored: str | None) -> dict[str, Any] | None:
    """Return the fields of a lease; None for none, as in an imported study."""
    return None if stored is None else json.loads(stored)


def _machine(holder: Mapping[str, Any]) -> Machine:
    return Machine(**{field.name: holder[field.name] for field in fields(Machine)})


def _system() -> str:
    """Return what differs after a restart of the host, and in another container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # macOS
        return ""


def _start_of(pid: int) -> str:
    """Return when a process was started; empty if it has exited. Without /proc, only whether it runs is known."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "running"
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()  # the name, in parentheses, may hold blanks
    return "" if state == "Z" else rest[18]


def _uptime() -> float:
    """Return seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
