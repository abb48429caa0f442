"""What is done where a server that a test wants is absent, and a patient wait for a condition."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0


def absent(reason: str) -> NoReturn:
    """Skips the test, with the reason; fails it where `REQUIRE_SERVERS=1` says that every server must be there."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(holds: Callable[[], bool], *, timeout_s: float = PATIENCE_S, what: str = "the condition") -> float:
    """Waits for a condition; returns how many seconds that took. Fails the test after `timeout_s`."""
    began = time.monotonic()
    pause = threading.Event()
    while not holds():
        assert time.monotonic() - began < timeout_s, f"waited {timeout_s:g} s for {what}"
        pause.wait(0.02)
    return time.monotonic() - began


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
