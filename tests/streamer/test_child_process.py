from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from streamer.child_process import FIRST_RESTART_S, HELD_OUT_S, HUNG_S, RENEW_S, Child, ChildSpec
from streamer.children import CANNOT_START, ChildContext, StartError
from streamer.config import EmbedderConfig
from streamer.counters import Board, Field, Order
from streamer.setups import EmbeddingSetup, WorkerSetup
from tests.streamer.test_health import Clock

STAGE = "worker"
Start = Callable[..., Child]


def work(context: ChildContext, _: WorkerSetup) -> None:
    """A worker that starts, and ends when it is told."""
    context.say_started()
    while not context.is_told(Order.STOP_ALL):
        threading.Event().wait(0.02)


def follow(context: ChildContext, _: WorkerSetup) -> None:
    """A worker that ends when its site changes."""
    edition = context.board.edition
    context.say_started()
    while context.board.edition == edition:
        threading.Event().wait(0.02)


def refuse(_: ChildContext, setup: WorkerSetup) -> None:
    """A worker that can't start."""
    assert isinstance(setup, EmbeddingSetup)
    raise StartError(f"{setup.address}: no such thing")


def die(_: ChildContext, __: WorkerSetup) -> None:
    """A worker that is killed at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def board() -> Board:
    return Board([], [STAGE])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(board: Board, clock: Clock) -> Iterator[Start]:
    children: list[Child] = []

    def begin(target: str, *, has_work: bool = True) -> Child:
        setup = EmbeddingSetup(EmbedderConfig(), "address", STAGE) if has_work else None
        child = Child(ChildSpec(STAGE, f"{__name__}:{target}", lambda: setup), board, monotonic=clock)
        children.append(child)
        child.start()
        return child

    yield begin
    for child in children:
        child.end()


def wait_for(condition: Callable[[], bool], child: Child, *, restart: bool = False) -> None:
    for _ in range(3000):
        child.watch(restart=restart)
        if condition():
            return
        threading.Event().wait(0.02)
    pytest.fail("it never came to that")


def test_a_child_starts_works_and_ends(board: Board, start: Start) -> None:
    child = start("work")
    wait_for(lambda: child.has_started, child)
    board.order = Order.STOP_ALL
    wait_for(lambda: child.is_done, child)

    assert board.stage(STAGE).count(Field.RESTARTS) == 0


def test_a_child_that_can_not_start_says_why(start: Start) -> None:
    child = start("refuse")
    wait_for(lambda: child.deaths == 1, child)

    assert child.problem == "address: no such thing"
    assert not child.has_started
    assert CANNOT_START == 2


def test_a_child_without_work_is_done(start: Start) -> None:
    assert start("work", has_work=False).is_done


def test_a_child_that_dies_is_started_again_after_a_while(board: Board, clock: Clock, start: Start) -> None:
    child = start("die")
    wait_for(lambda: child.deaths == 1, child, restart=True)
    child.watch(restart=True)
    assert child.process is None

    clock.now_s += FIRST_RESTART_S
    wait_for(lambda: child.deaths == 2, child, restart=True)
    clock.now_s += FIRST_RESTART_S
    child.watch(restart=True)
    assert child.process is None
    assert board.stage(STAGE).count(Field.RESTARTS) == 2


def test_a_child_that_held_out_begins_anew(clock: Clock, start: Start) -> None:
    child = start("work")
    wait_for(lambda: child.has_started, child)
    child.deaths = 4
    clock.now_s += HELD_OUT_S + 1
    assert child.process is not None
    child.process.kill()
    wait_for(lambda: child.process is None, child)

    assert child.deaths == 1


def test_a_child_is_not_started_again_when_nobody_wants_it(clock: Clock, start: Start) -> None:
    child = start("die")
    wait_for(lambda: child.deaths == 1, child)
    clock.now_s += 1000
    child.watch(restart=False)

    assert child.process is None


def test_a_child_that_hangs_is_killed(board: Board, clock: Clock, start: Start) -> None:
    child = start("work")
    wait_for(lambda: child.has_started, child)
    clock.now_s = 1000 + HUNG_S
    board.stage(STAGE)[Field.ALIVE_S] = 1001
    child.watch(restart=False)
    assert child.process is not None
    assert child.deaths == 0

    clock.now_s += 2
    wait_for(lambda: child.deaths == 1, child)


@pytest.mark.parametrize(("target", "waits_s"), [("follow", 0.0), ("work", RENEW_S + 1)])
def test_a_child_is_renewed_once_it_has_ended_or_was_given_its_time(
    board: Board, clock: Clock, start: Start, target: str, waits_s: float
) -> None:
    child = start(target)
    wait_for(lambda: child.has_started, child)
    first = child.process
    board.edition += 1
    child.renew()
    clock.now_s += waits_s
    wait_for(lambda: child.process not in (first, None), child, restart=True)

    assert first is not None
    # A worker that hears of the change is not cut off in its work.
    assert first.exitcode == (0 if target == "follow" else -signal.SIGKILL)
    assert (child.deaths, board.stage(STAGE).count(Field.RESTARTS), child.is_done) == (0, 0, False)


def test_ctrl_c_leaves_a_child_alone(board: Board, start: Start) -> None:
    child = start("work")
    wait_for(lambda: child.has_started, child)
    assert child.process is not None
    assert child.process.pid is not None
    os.kill(child.process.pid, signal.SIGINT)
    board.order = Order.STOP_ALL
    wait_for(lambda: child.is_done, child)

    assert "pytest" in sys.modules
