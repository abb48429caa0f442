"""A camera of our own on a TCP port: one client at a time, and what the video library writes goes to it."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from typing import TYPE_CHECKING, Self

import av

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE_S = 10.0


class Pipe(io.RawIOBase):
    """What the library writes goes to a socket."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._client.sendall(data)
        return len(data)


class OneClientCamera:
    """Serves one client after the other, from a thread; used as a context manager. `serve_client` is its own."""

    def __init__(self) -> None:
        #: Times that somebody connected.
        self.connections = 0
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, name="test-camera", daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(_PATIENCE_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def serve_client(self, client: socket.socket) -> None:
        """Sends until its show is over, or the client has gone."""
        raise NotImplementedError

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            client.settimeout(1.0)
            with client, contextlib.suppress(OSError, av.error.FFmpegError):
                self.serve_client(client)
