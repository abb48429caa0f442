"""The embedding worker: crops of all cameras in, batched by size or age, vectors and points out; a process of its own.

It keeps nothing: what it has not answered when it dies, its askers ask again. Its queue holds at most what they have in
flight (`EmbeddingClient` bounds that), so it needs no bound of its own.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from reid.embedder import Descriptions, Embedder, EmbedderError
from reid.tokens import MAX_BYTES, TokensError, pack, packed_size
from streamer.children import ChildContext, StartError
from streamer.counters import Field, Order, RowState
from streamer.embedding_wire import CropAnswer, CropQuestion, WireError, encode_hello, limit_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from reid.embedder import EmbedderInfo
    from reid.modality import Modality
    from streamer.counters import Row
    from streamer.setups import EmbeddingSetup

_log = structlog.get_logger(__name__)

#: How often an idle worker looks whether it should end.
IDLE_S = 0.2
#: How long an asker that reads nothing (it is stopped, but there) holds up the others: once, then it is dropped.
ANSWER_TIMEOUT_S = 2.0
_BACKLOG = 64


class CropEmbedder(Protocol):
    """What makes vectors: `reid.embedder.Embedder`, or a fake."""

    @property
    def info(self) -> EmbedderInfo:
        """What it makes."""
        ...

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        """(N, D) float32, unit norm."""
        ...

    def describe(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> Descriptions:
        """The same vectors, and (N, L, P, C) float32 tokens where `info.points` is set; dearer than `embed`."""
        ...


class _Peer:
    """One connected camera worker. Its own thread reads; answers come from the batching thread alone."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        limit_wait(self._socket, socket.SO_SNDTIMEO, ANSWER_TIMEOUT_S)
        # A handle closed by the reading thread in the midst of an answer would by then be another asker's.
        self._lock = threading.Lock()

    def answer(self, answer: CropAnswer) -> None:
        """Sends an answer, within `ANSWER_TIMEOUT_S`; an asker that is gone needs none."""
        with self._lock:
            try:
                self.connection.send_bytes(answer.encode())
            except BlockingIOError:
                _log.warning("an asker does not take its answers: it must connect again", after_s=ANSWER_TIMEOUT_S)
                # Half an answer may be on its way. Whatever else is for this asker fails at once; its reader ends.
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                _log.info("an asker left before its answer")

    def close(self) -> None:
        """Lets go of the connection, between two answers."""
        with self._lock:
            self.connection.close()
            self._socket.close()


@dataclass(frozen=True, slots=True)
class _Job:
    peer: _Peer
    question: CropQuestion


class EmbeddingServer:
    """Listens, batches, embeds, answers.

    `run` blocks in the thread that calls it. Connections each have a thread that only reads.

    Args:
        address: The socket to listen on; a stale one is removed.
        embedder: Makes the vectors.
        batch_size: A batch is never larger.
        max_wait_s: A crop never waits longer for others to join it.
        row: Counts go here.
    """

    def __init__(self, address: str, embedder: CropEmbedder, *, batch_size: int, max_wait_s: float, row: Row) -> None:
        Path(address).unlink(missing_ok=True)
        self._listener = Listener(address, "AF_UNIX", backlog=_BACKLOG)
        self._embedder, self._batch_size, self._max_wait_s, self._row = embedder, batch_size, max_wait_s, row
        self._makes_tokens = _makes_tokens(embedder.info)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._is_closing = False

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serves until `should_stop` says so, asked at least every `IDLE_S` while idle."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        self._row.state = RowState.RUNNING
        while not should_stop():
            self._row[Field.ALIVE_S] = time.monotonic()
            jobs = self._gather()
            if jobs:
                self._serve(jobs)
        self._row.state = RowState.STOPPED
        self._is_closing = True
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError as error:
                if self._is_closing:
                    return
                # Out of file handles, say: whoever asks tries again, and so does this thread.
                _log.warning("an asker could not be let in", reason=str(error))
                time.sleep(IDLE_S)
                continue
            threading.Thread(target=self._read, args=(connection,), name="read", daemon=True).start()

    def _read(self, connection: Connection) -> None:
        peer = _Peer(connection)
        try:
            connection.send_bytes(encode_hello(self._embedder.info))
            while True:
                self._jobs.put(_Job(peer, CropQuestion.decode(connection.recv_bytes())))
        except (OSError, EOFError):
            _log.debug("an asker left")
        except WireError as error:
            _log.warning("an asker speaks another language", reason=str(error))
        finally:
            peer.close()

    def _gather(self) -> list[_Job]:
        """The next batch: full, or as old as a crop may become; empty when nothing comes."""
        try:
            jobs = [self._jobs.get(timeout=IDLE_S)]
        except queue.Empty:
            return []
        deadline = time.monotonic() + self._max_wait_s
        while len(jobs) < self._batch_size:
            try:
                jobs.append(self._jobs.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                break
        return jobs

    def _serve(self, jobs: list[_Job]) -> None:
        began, began_s = time.process_time(), time.monotonic()
        for job, answer in zip(jobs, self._answers(jobs), strict=True):
            job.peer.answer(answer)
        self._row.add(Field.HANDLED, len(jobs))
        self._row.add(Field.BATCHES)
        self._row.add(Field.WORK_S, time.process_time() - began)
        self._row.observe(time.monotonic() - began_s)
        self._row[Field.QUEUE_DEPTH] = self._jobs.qsize()

    def _answers(self, jobs: list[_Job]) -> list[CropAnswer]:
        questions = [job.question for job in jobs]
        try:
            made = self._describe(questions)
        except EmbedderError as error:
            # One crop that can't be embedded must not cost the others of its batch their answers.
            if len(jobs) > 1:
                return [answer for job in jobs for answer in self._answers([job])]
            self._row.add(Field.FAILURES)
            _log.warning("crop not embedded", reason=str(error))
            return [CropAnswer(questions[0].id, None)]
        tokens = made.tokens if made.tokens is not None else [None] * len(questions)
        return [
            CropAnswer(question.id, vector, _packed(points) if question.wants_tokens else None)
            for question, vector, points in zip(questions, made.vectors, tokens, strict=True)
        ]

    def _describe(self, questions: Sequence[CropQuestion]) -> Descriptions:
        crops, modalities = [question.crop for question in questions], [question.modality for question in questions]
        # One pass for all: points cost a fifth more, a second pass for those without costs more than that.
        if self._makes_tokens and any(question.wants_tokens for question in questions):
            return self._embedder.describe(crops, modalities)
        return Descriptions(self._embedder.embed(crops, modalities), None)


def _makes_tokens(info: EmbedderInfo) -> bool:
    """Whether the network has points, and few enough for a sighting: one that is too large would be lost whole."""
    if info.points is None:
        return False
    size = packed_size(*info.points)
    if size > MAX_BYTES:
        _log.warning("points left out", reason=f"{size} bytes a picture, at most {MAX_BYTES}: see reid.compaction")
    return size <= MAX_BYTES


def _packed(points: NDArray[np.float32] | None) -> bytes | None:
    if points is None:
        return None
    try:
        return pack(points)
    except TokensError as error:
        _log.warning("points not packed", reason=str(error))
        return None


def run_embedding_worker(context: ChildContext, setup: EmbeddingSetup) -> None:
    """Loads the embedder and serves until everybody is told to stop.

    Raises:
        StartError: The weights can't be loaded.
    """
    config = setup.config
    try:
        embedder = Embedder(
            config.weights,
            device=config.device,
            max_batch=config.batch_size,
            threads=setup.threads,
            mirrored=config.mirrored,
        )
    except EmbedderError as error:
        raise StartError(f"embedder.weights: {error}") from error
    server = EmbeddingServer(
        setup.address,
        embedder,
        batch_size=config.batch_size,
        max_wait_s=config.max_wait_s,
        row=context.board.stage(setup.stage),
    )
    context.say_started()
    server.run(lambda: context.is_told(Order.EMPTY_OUTBOX))
