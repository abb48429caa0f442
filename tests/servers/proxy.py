"""A TCP proxy that makes the network's faults, in front of any server of a test."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

from tests.servers.need import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_CHUNK_BYTES = 64 * 1024
#: Chunks under way in one direction of a connection; beyond that the sender waits, as in a full pipe.
_MAX_CHUNKS = 1024
_PATIENCE_S = 10.0
#: Closing a socket with this set sends a reset instead of a farewell.
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Forwards a port of the loopback interface to a server, and can delay, swallow and cut what goes through.

    Used as a context manager it is started, and stopped after. Faults may be set from any thread.

    Args:
        target: The server, as `host:port`; it need not be there yet.
        tls: Certificate and key for clients that speak TLS; the server behind is spoken to in plain text.
    """

    def __init__(self, target: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        #: Each chunk arrives so much later, in either direction.
        self.latency_s = 0.0
        self._target = target
        self._tls = tls
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="tcp-proxy", daemon=True)
        self._listens = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listens when this returns."""
        self._thread.start()
        assert self._listens.wait(_PATIENCE_S), "the proxy does not listen"

    def stop(self) -> None:
        """Cuts every connection and lets go of the port."""
        self._tell(self._stopping.set)
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive(), "the proxy does not end"

    def blackhole(self) -> None:
        """Nothing passes any more, and nobody is told: connections stay, new ones open and hear nothing.

        What is sent meanwhile arrives after `heal`, if the connection is still there: TCP repeats what was lost.
        """
        self._tell(self._flows.clear)

    def heal(self) -> None:
        """Lets everything pass again."""
        self._tell(self._flows.set)

    def reset_all(self) -> None:
        """Cuts every connection there is with a reset; what was under way is lost. New ones are taken."""
        self._tell(self._reset)

    def _tell(self, what: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # A client that fails its handshake is the test's subject, no news.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._flows.set()
        host, _, port = self.address.partition(":")
        server = await asyncio.start_server(self._accept, host, int(port), ssl=self._tls)
        self._listens.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        self._reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            # The server is away, or the proxy ends: either way the client's connection is over.
            pass
        finally:
            self._drop(writer)
            self._connections.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        host, _, port = self._target.partition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers.add(far_writer)
        ways = [asyncio.create_task(self._carry(*way)) for way in ((reader, far_writer), (far_reader, writer))]
        try:
            # One side has ended: so does the other.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._drop(far_writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_CHUNKS)
        delivery = asyncio.create_task(self._deliver(under_way, writer))
        now = asyncio.get_running_loop().time
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await under_way.put((now() + self.latency_s, chunk))
            await under_way.join()
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(max(0.0, due - now()))
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()
            under_way.task_done()

    def _reset(self) -> None:
        for writer in list(self._writers):
            own: socket.socket | None = writer.get_extra_info("socket")
            if own is not None and own.fileno() >= 0:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()
