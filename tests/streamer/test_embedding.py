from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from reid.embedder import Descriptions, EmbedderInfo
from reid.modality import Modality
from reid.tokens import unpack
from streamer import embedding_worker
from streamer.config import EmbedderConfig
from streamer.counters import Board, Field, Order
from streamer.embedding_client import Answer, EmbeddingClient, connect
from streamer.embedding_wire import CropAnswer, CropQuestion, WireError, decode_hello, encode_hello
from streamer.embedding_worker import EmbeddingServer
from tests.streamer.fake_embedder import INFO, POISON, FakeEmbedder, crop_of, points_for, serve, vector_for

CONFIG = EmbedderConfig(batch_size=4, max_wait_s=0.02, queue_crops=1000, reply_timeout_s=20.0, attempts=3, tokens=True)


class Served:
    """A server in a thread, with the embedder that it uses."""

    def __init__(self, address: Path, config: EmbedderConfig = CONFIG, info: EmbedderInfo = INFO) -> None:
        self.embedder = FakeEmbedder(info)
        self.board = Board([], ["embedder"])
        self.row = self.board.stage("embedder")
        self._stopping = threading.Event()
        server = EmbeddingServer(
            str(address), self.embedder, batch_size=config.batch_size, max_wait_s=config.max_wait_s, row=self.row
        )
        self._thread = threading.Thread(target=server.run, args=(self._stopping.is_set,))
        self._thread.start()

    def stop(self) -> None:
        self.embedder.gate.set()
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def served(address: Path) -> Iterator[Served]:
    server = Served(address)
    yield server
    server.stop()


ClientMaker = Callable[..., EmbeddingClient[int]]


@pytest.fixture
def make_client(address: Path) -> Iterator[ClientMaker]:
    clients: list[EmbeddingClient[int]] = []

    def make(**changes: object) -> EmbeddingClient[int]:
        client: EmbeddingClient[int] = EmbeddingClient(str(address), CONFIG.model_copy(update=changes))
        client.start()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def collect(client: EmbeddingClient[int], count: int) -> dict[int, Answer[int]]:
    """Waits for so many answers; each tag once."""
    answers: list[Answer[int]] = []
    while len(answers) < count:
        news = client.take_answers(30)
        assert news, f"{len(answers)} of {count} answers came"
        answers += news
    assert len({answer.tag for answer in answers}) == count
    return {answer.tag: answer for answer in answers}


def assert_same(found: NDArray[np.float32] | None, wanted: NDArray[np.float32]) -> None:
    assert found is not None
    assert np.abs(found - wanted).max() < 1e-6


def test_messages_survive_the_wire() -> None:
    question = CropQuestion(2**60, crop_of(7), Modality.THERMAL, wants_tokens=True)
    decoded = CropQuestion.decode(question.encode())
    assert (decoded.id, decoded.modality, decoded.wants_tokens) == (question.id, question.modality, True)
    np.testing.assert_array_equal(decoded.crop, question.crop)

    for tokens in (None, b"odd"):
        answer = CropAnswer.decode(CropAnswer(5, vector_for(1, Modality.VISIBLE), tokens).encode())
        np.testing.assert_array_equal(answer.vector, vector_for(1, Modality.VISIBLE))
        assert answer.tokens == tokens
    assert CropAnswer.decode(CropAnswer(6, None).encode()).vector is None
    assert decode_hello(encode_hello(INFO)) == INFO


@pytest.mark.parametrize("data", [b"", b"x" * 12, CropQuestion(1, crop_of(1), Modality.VISIBLE).encode()[:-1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        CropQuestion.decode(data)
    with pytest.raises(WireError):
        CropAnswer.decode(data + b"x")
    with pytest.raises(WireError):
        decode_hello(data)


def test_each_crop_gets_its_own_answer(served: Served, make_client: ClientMaker) -> None:
    first, second = make_client(), make_client()
    for tag in range(40):
        first.ask(tag, crop_of(tag + 20), Modality.VISIBLE, droppable=False)
        second.ask(tag, crop_of(tag + 100), Modality.THERMAL, droppable=True)

    for client, base, modality in ((first, 20, Modality.VISIBLE), (second, 100, Modality.THERMAL)):
        for tag, answer in collect(client, 40).items():
            assert_same(answer.vector, vector_for(tag + base, modality))
    assert served.row.count(Field.HANDLED) == 80


def test_points_come_with_the_crops_that_want_them_and_change_no_vector(
    served: Served, make_client: ClientMaker
) -> None:
    client = make_client()
    for tag in range(12):
        client.ask(tag, crop_of(tag + 20), Modality.VISIBLE, droppable=False, wants_tokens=tag % 3 == 0)

    for tag, answer in collect(client, 12).items():
        assert_same(answer.vector, vector_for(tag + 20, Modality.VISIBLE))
        if tag % 3:
            assert answer.tokens is None
        else:
            assert answer.tokens is not None
            np.testing.assert_allclose(unpack(answer.tokens), points_for(tag + 20), atol=0.1)
    assert served.embedder.described > 0


def test_points_are_not_made_where_the_site_wants_none(served: Served, make_client: ClientMaker) -> None:
    client = make_client(tokens=False)
    client.ask(0, crop_of(20), Modality.VISIBLE, droppable=False, wants_tokens=True)

    assert collect(client, 1)[0].tokens is None
    assert served.embedder.described == 0


@pytest.mark.parametrize("points", [None, (3, 128, 64)], ids=["no matcher", "too many for a sighting"])
def test_a_network_without_points_that_travel_answers_with_its_vector(
    address: Path, make_client: ClientMaker, points: tuple[int, int, int] | None
) -> None:
    server = Served(address, info=replace(INFO, points=points))
    client = make_client()
    client.ask(0, crop_of(20), Modality.VISIBLE, droppable=False, wants_tokens=True)
    answer = collect(client, 1)[0]
    server.stop()

    assert_same(answer.vector, vector_for(20, Modality.VISIBLE))
    assert answer.tokens is None
    assert server.embedder.described == 0


def test_a_crop_of_points_that_are_no_numbers_keeps_its_vector(
    served: Served, make_client: ClientMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Descriptions(vector_for(20, Modality.VISIBLE)[np.newaxis], np.full((1, 2, 3, 4), np.nan, np.float32))
    monkeypatch.setattr(served.embedder, "describe", lambda *_: broken)
    client = make_client()
    client.ask(0, crop_of(20), Modality.VISIBLE, droppable=False, wants_tokens=True)
    answer = collect(client, 1)[0]

    assert_same(answer.vector, vector_for(20, Modality.VISIBLE))
    assert answer.tokens is None


def test_crops_of_several_askers_share_a_batch_of_bounded_size(served: Served, make_client: ClientMaker) -> None:
    served.embedder.gate.clear()
    clients = [make_client() for _ in range(3)]
    clients[0].ask(0, crop_of(20), Modality.VISIBLE, droppable=False)
    assert served.embedder.is_busy.wait(20)
    for client in clients[1:]:
        for tag in range(6):
            client.ask(tag, crop_of(30 + tag), Modality.VISIBLE, droppable=False)
    served.embedder.gate.set()
    collect(clients[0], 1)
    collect(clients[1], 6)
    collect(clients[2], 6)

    assert sum(served.embedder.batches) == 13
    assert max(served.embedder.batches) == CONFIG.batch_size


def test_one_bad_crop_costs_its_neighbours_nothing(served: Served, make_client: ClientMaker) -> None:
    client = make_client()
    for tag, colour in enumerate([20, POISON, 30, 40]):
        client.ask(tag, crop_of(colour), Modality.VISIBLE, droppable=False)

    answers = collect(client, 4)
    assert [answers[tag].vector is None for tag in range(4)] == [False, True, False, False]
    assert served.row.count(Field.FAILURES) == 1


def test_a_full_queue_gives_up_the_oldest_droppable_crop(make_client: ClientMaker) -> None:
    client = make_client(queue_crops=3)
    client.ask(0, crop_of(20), Modality.VISIBLE, droppable=False)
    for tag in range(1, 6):
        client.ask(tag, crop_of(20 + tag), Modality.VISIBLE, droppable=True)

    assert {tag: answer.vector for tag, answer in collect(client, 3).items()} == {1: None, 2: None, 3: None}


def test_a_full_queue_makes_a_file_wait(served: Served, make_client: ClientMaker) -> None:
    served.embedder.gate.clear()
    client = make_client(queue_crops=2)

    def ask_all() -> None:
        for tag in range(6):
            client.ask(tag, crop_of(20 + tag), Modality.VISIBLE, droppable=False)

    asking = threading.Thread(target=ask_all)
    asking.start()
    assert served.embedder.is_busy.wait(20)
    assert asking.is_alive()
    served.embedder.gate.set()
    answers = collect(client, 6)
    asking.join(20)

    assert all(answer.vector is not None for answer in answers.values())


def test_without_a_worker_a_crop_is_given_up_in_time(make_client: ClientMaker) -> None:
    client = make_client(reply_timeout_s=0.1, attempts=2)
    client.ask(1, crop_of(20), Modality.VISIBLE, droppable=True)

    assert collect(client, 1)[1].vector is None


def test_a_file_s_crop_waits_for_a_worker_as_long_as_it_takes(address: Path, make_client: ClientMaker) -> None:
    client = make_client(reply_timeout_s=0.05, attempts=1)
    client.ask(1, crop_of(20), Modality.VISIBLE, droppable=False)
    client.ask(2, crop_of(20), Modality.VISIBLE, droppable=True)
    assert collect(client, 1)[2].vector is None
    served = Served(address)

    assert collect(client, 1)[1].vector is not None
    served.stop()


@pytest.mark.parametrize("droppable", [True, False])
def test_a_stopped_worker_holds_nobody_up(address: Path, make_client: ClientMaker, droppable: bool) -> None:
    """It is still there: it takes connections, and what is written, until its buffers are full."""
    board = Board([], ["embedder"])
    worker = start_worker(address, board)
    client = make_client(reply_timeout_s=0.3, attempts=2, batch_size=200)
    assert client.wait_for_info(60) == INFO
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    large = np.zeros((1000, 1000, 3), np.uint8)
    for tag in range(4):
        client.ask(tag, large, Modality.VISIBLE, droppable=droppable)
    client.ask(4, crop_of(20), Modality.VISIBLE, droppable=droppable)
    if droppable:
        assert {answer.vector for answer in collect(client, 5).values()} == {None}
    else:
        assert client.take_answers(2.0) == []
    worker.kill()
    worker.join()
    client.close()


def send_for_ever(connection: Connection, message: bytes) -> NoReturn:
    while True:
        connection.send_bytes(message)


def test_an_asker_that_reads_nothing_is_dropped_and_the_others_are_served(
    address: Path, make_client: ClientMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped camera worker: still connected, its buffers full."""
    monkeypatch.setattr(embedding_worker, "ANSWER_TIMEOUT_S", 0.1)
    question = CropQuestion(1, crop_of(20), Modality.VISIBLE, wants_tokens=True).encode()
    served = Served(address)
    with closing(connect(str(address), 20.0)) as deaf, capture_logs() as logs:
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            send_for_ever(deaf, question)
        client = make_client(attempts=1)
        client.ask(2, crop_of(20), Modality.VISIBLE, droppable=True)

        assert_same(collect(client, 1)[2].vector, vector_for(20, Modality.VISIBLE))
    served.stop()
    assert [line["log_level"] for line in logs if "does not take its answers" in line["event"]] == ["warning"]


def test_a_worker_that_never_answers_is_asked_so_many_times(served: Served, make_client: ClientMaker) -> None:
    served.embedder.gate.clear()
    client = make_client(reply_timeout_s=0.2, attempts=2)
    client.ask(1, crop_of(20), Modality.VISIBLE, droppable=True)

    assert collect(client, 1)[1].vector is None


def test_a_client_that_closes_lets_its_waiting_threads_go(make_client: ClientMaker) -> None:
    client = make_client(queue_crops=1)
    client.ask(0, crop_of(20), Modality.VISIBLE, droppable=False)
    asking = threading.Thread(target=lambda: client.ask(1, crop_of(20), Modality.VISIBLE, droppable=False))
    asking.start()
    client.close()
    asking.join(20)

    assert not asking.is_alive()


def start_worker(address: Path, board: Board) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(str(address), board))
    process.start()
    return process


def test_crops_in_flight_survive_the_death_of_the_worker(address: Path, make_client: ClientMaker) -> None:
    board = Board([], ["embedder"])
    client = make_client(attempts=5)
    worker = start_worker(address, board)
    assert client.wait_for_info(60) == INFO
    for tag in range(300):
        client.ask(tag, crop_of(20 + tag % 200), Modality.VISIBLE, droppable=False)
    early = client.take_answers(30)
    worker.kill()
    worker.join()
    worker = start_worker(address, board)
    late = collect(client, 300 - len(early))
    board.order = Order.STOP_ALL
    worker.join(30)

    assert worker.exitcode == 0
    assert {answer.tag for answer in early} | set(late) == set(range(300))
    for answer in [*early, *late.values()]:
        assert_same(answer.vector, vector_for(20 + answer.tag % 200, Modality.VISIBLE))
