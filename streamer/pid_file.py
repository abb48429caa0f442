"""How `reload` finds the supervisors of a site on this host: a locked file beside the outbox for each that runs."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = structlog.get_logger(__name__)


class PidFile:
    """Says that this process runs. The lock ends with the process, whatever ends it; the file may outlive it.

    Args:
        outbox: The site's outbox file.
    """

    def __init__(self, outbox: Path) -> None:
        self._path = outbox.with_name(f"{outbox.name}.{os.getpid()}.pid")
        self._file: TextIO | None = None

    def open(self) -> None:
        """Makes and locks the file. Where it can't be made, the process runs without."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.write(f"{os.getpid()} {socket.gethostname()}\n")
            self._file.flush()
        except OSError as error:
            _log.warning("no pid file, reload won't find this process", path=str(self._path), reason=error.strerror)

    def close(self) -> None:
        """Removes the file. Safe to call twice."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def running(outbox: Path) -> list[int]:
    """Process ids of the supervisors that run beside this outbox, on this host; files left by others are removed."""
    return sorted(pid for path in outbox.parent.glob(f"{outbox.name}.*.pid") for pid in _holder(path))


def ask_to_reload(pid: int) -> str:
    """Tells a supervisor that its site file has changed; empty, or why it can't be told."""
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        return f"process {pid}: {error.strerror or error}"
    return ""


def _holder(path: Path) -> Iterator[int]:
    try:
        with path.open("r+", encoding="utf-8") as file:
            if _is_locked(file):
                pid, _, host = file.read().strip().partition(" ")
                # In a container beside this one the same number is another process.
                if pid.isdigit() and host == socket.gethostname():
                    yield int(pid)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("pid file not read", path=str(path), reason=error.strerror)


def _is_locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
