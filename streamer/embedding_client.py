"""A camera worker's side of the embedder: it owns every crop until there is an answer.

Vectors come back here, not onwards to the bus: the camera worker owns the tracklet and writes its sightings into the
outbox, so the death of an embedder loses no sighting, only time. A connection that breaks or is silent too long is
opened again, and what it had not answered is asked again. A live camera's crop is given up after `attempts`, or when no
worker has answered for as long as those would take; its answer is then None. A file's crop waits for a worker as long
as it takes, and is given up only where `attempts` workers have died of what they were asked.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from streamer.embedding_wire import CropAnswer, CropQuestion, WireError, decode_hello, limit_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from reid.embedder import EmbedderInfo
    from reid.modality import Modality
    from streamer.config import EmbedderConfig

_log = structlog.get_logger(__name__)

Tag = TypeVar("Tag")

#: Between two tries to reach a worker that is not there.
RECONNECT_S = 0.1
#: The longest sleep of the client's thread; messages and closing wake it at once.
_NAP_S = 0.5
#: Batches in flight: one is computed while the next one arrives.
_BATCHES_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class Answer(Generic[Tag]):
    """What became of a crop.

    Attributes:
        tag: As it was asked.
        vector: (D,) float32 of unit norm, or None where the crop was dropped.
        tokens: Its packed points, where they were wanted and the embedder makes some.
    """

    tag: Tag
    vector: NDArray[np.float32] | None
    tokens: bytes | None = None


@dataclass(slots=True)
class _Waiting(Generic[Tag]):
    tag: Tag
    message: bytes
    is_droppable: bool
    asked_s: float
    sent_s: float | None = None
    attempts: int = 0


class EmbeddingClient(Generic[Tag]):
    """Asks the embedding worker, from one thread of its own; safe to call from any thread.

    `ask` never blocks for a droppable crop: when `queue_crops` wait, the oldest droppable one is given up. For a crop
    that must not be dropped it blocks until there is room, which a hung embedder gives only once the supervisor has
    replaced it. Each crop gets exactly one answer; without a worker a droppable one waits at most
    `attempts * reply_timeout_s`.

    Args:
        address: The worker's socket.
        config: Limits and time-outs.
        monotonic: Seconds.
    """

    def __init__(self, address: str, config: EmbedderConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._address, self._config, self._monotonic = address, config, monotonic
        self._window = _BATCHES_IN_FLIGHT * config.batch_size
        self._changed = threading.Condition()
        self._waiting: OrderedDict[int, _Waiting[Tag]] = OrderedDict()
        self._answers: list[Answer[Tag]] = []
        self._next_id = 0
        self._in_flight = 0
        self._is_closed = False
        self._info: EmbedderInfo | None = None
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._is_woken = False
        self._heard_s = 0.0
        self._thread = threading.Thread(target=self._run, name="embedding-client", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; crops without an answer stay without one."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._wake_reader.close()
        self._wake_writer.close()

    def wait_for_info(self, timeout_s: float) -> EmbedderInfo | None:
        """What the worker embeds; blocks until it has said so, or None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._info is not None, timeout_s)
            return self._info

    def ask(
        self,
        tag: Tag,
        crop: NDArray[np.uint8],
        modality: Modality,
        *,
        droppable: bool,
        wants_tokens: bool = False,
    ) -> None:
        """Asks for one crop's vector.

        Args:
            tag: Comes back with the answer.
            crop: (H, W, 3) uint8 RGB of the size that the worker's info names.
            modality: The band of the crop.
            droppable: Whether it may be given up when too many wait.
            wants_tokens: Whether its points are wanted too; `embedder.tokens` must allow it.
        """
        with self._changed:
            if droppable:
                self._make_room()
            else:
                self._changed.wait_for(lambda: self._is_closed or len(self._waiting) < self._config.queue_crops)
            if self._is_closed:
                return
            wants_tokens = wants_tokens and self._config.tokens
            message = CropQuestion(self._next_id, crop, modality, wants_tokens).encode()
            self._waiting[self._next_id] = _Waiting(tag, message, droppable, self._monotonic())
            self._next_id += 1
            self._wake()

    def take_answers(self, timeout_s: float = 0.0) -> list[Answer[Tag]]:
        """Answers that came since the last call, in the order in which they came; waits for the first."""
        with self._changed:
            if timeout_s > 0:
                self._changed.wait_for(lambda: bool(self._answers) or self._is_closed, timeout_s)
            answers, self._answers = self._answers, []
            return answers

    def _make_room(self) -> None:
        while len(self._waiting) >= self._config.queue_crops:
            oldest = next((number for number, item in self._waiting.items() if item.is_droppable), None)
            if oldest is None:
                return
            self._settle(CropAnswer(oldest, None))

    def _settle(self, answer: CropAnswer) -> None:
        item = self._waiting.pop(answer.id, None)
        if item is None:
            return
        self._in_flight -= item.sent_s is not None
        self._answers.append(Answer(item.tag, answer.vector, answer.tokens))
        self._changed.notify_all()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._wake_writer.send_bytes(b"!")

    def _run(self) -> None:
        self._heard_s = self._monotonic()
        while not self._is_closed:
            try:
                connection = connect(self._address, self._config.reply_timeout_s)
            except OSError:
                self._give_up_the_old()
                self._nap()
                continue
            try:
                self._converse(connection)
            except (OSError, EOFError, WireError) as error:
                _log.warning("embedding worker lost, asking again", reason=str(error) or type(error).__name__)
                self._take_back(is_dead=not isinstance(error, TimeoutError | BlockingIOError))
                self._give_up_the_old()
            finally:
                connection.close()

    def _converse(self, connection: Connection) -> None:
        if not self._await_hello(connection):
            return
        info = decode_hello(connection.recv_bytes())
        with self._changed:
            self._info = info
            self._changed.notify_all()
        while not self._is_closed:
            self._send(connection)
            self._listen(connection)

    def _await_hello(self, connection: Connection) -> bool:
        """Whether the worker has said something; False when closed meanwhile."""
        until_s = self._monotonic() + self._config.reply_timeout_s
        while not self._is_closed:
            if connection.poll(_NAP_S):
                return True
            # A hung worker still takes connections.
            self._give_up_the_old()
            if self._monotonic() > until_s:
                raise TimeoutError(f"no hello for {self._config.reply_timeout_s:g} s")
        return False

    def _send(self, connection: Connection) -> None:
        for number, item in self._sendable():
            connection.send_bytes(item.message)
            with self._changed:
                # It may have been given up while its bytes were on their way.
                if number in self._waiting:
                    item.sent_s = self._monotonic()
                    self._in_flight += 1

    def _sendable(self) -> list[tuple[int, _Waiting[Tag]]]:
        with self._changed:
            room = self._window - self._in_flight
            if room <= 0 or self._in_flight == len(self._waiting):
                return []
            unsent = (pair for pair in self._waiting.items() if pair[1].sent_s is None)
            return [pair for _, pair in zip(range(room), unsent, strict=False)]

    def _listen(self, connection: Connection) -> None:
        for ready in wait([connection, self._wake_reader], self._patience_s()):
            if ready is connection:
                answer = CropAnswer.decode(connection.recv_bytes())
                self._heard_s = self._monotonic()
                with self._changed:
                    self._settle(answer)
            else:
                self._sleep_off()
        if self._patience_s() <= 0:
            raise TimeoutError(f"no answer for {self._config.reply_timeout_s:g} s")

    def _patience_s(self) -> float:
        """How long the oldest crop in flight may still take."""
        with self._changed:
            sent = min((item.sent_s for item in self._waiting.values() if item.sent_s is not None), default=None)
        if sent is None:
            return _NAP_S
        return min(_NAP_S, sent + self._config.reply_timeout_s - self._monotonic())

    def _sleep_off(self) -> None:
        with self._changed:
            self._wake_reader.recv_bytes()
            self._is_woken = False

    def _nap(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, RECONNECT_S)

    def _take_back(self, *, is_dead: bool) -> None:
        """What was on its way will be asked again, unless that has been tried often enough.

        A worker that was merely silent says nothing against what it was asked: only a live camera's crops then count
        the attempt.
        """
        with self._changed:
            for number, item in [pair for pair in self._waiting.items() if pair[1].sent_s is not None]:
                item.attempts += is_dead or item.is_droppable
                if item.attempts >= self._config.attempts:
                    self._settle(CropAnswer(number, None))
                else:
                    item.sent_s = None
            self._in_flight = 0

    def _give_up_the_old(self) -> None:
        """Without a worker for so long, no live camera's crop waits any more."""
        oldest_s = self._monotonic() - self._config.attempts * self._config.reply_timeout_s
        with self._changed:
            for number, item in list(self._waiting.items()):
                if item.is_droppable and max(item.asked_s, self._heard_s) < oldest_s:
                    self._settle(CropAnswer(number, None))


def connect(address: str, timeout_s: float) -> Connection:
    """A connection to a worker's socket on which nothing waits longer than `timeout_s`: a write fails then.

    The library's own client waits for ever, to connect and to write, where the worker is stopped but still there.

    Raises:
        OSError: Nobody listens, or whoever does takes no more connections.
    """
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(timeout_s)
        plain.connect(address)
        plain.setblocking(True)  # noqa: FBT003 - the library's own
        limit_wait(plain, socket.SO_SNDTIMEO, timeout_s)
        limit_wait(plain, socket.SO_RCVTIMEO, timeout_s)
        return Connection(os.dup(plain.fileno()))
