"""What every child process of the supervisor shares: how it says that it has started, and how it learns to stop."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from streamer.config import mask

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from multiprocessing.connection import Connection

    from streamer.counters import Board, Order

#: The exit status of a program that can't start: a bad config, a missing file, weights of the wrong kind.
CANNOT_START = 2

Setup = TypeVar("Setup")


class StartError(Exception):
    """A worker can't start, and trying again won't help. One line that names the culprit, passwords masked."""


@dataclass(frozen=True, slots=True)
class StartReport:
    """A child's first words: `problem` is empty when it has started."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class ChildContext:
    """What the supervisor gives a child.

    Attributes:
        board: Counters, and the supervisor's orders.
        report: Takes one `StartReport`.
        log_level: Of the standard library's `logging`.
    """

    board: Board
    report: Connection
    log_level: int = logging.INFO

    def is_told(self, order: Order) -> bool:
        """Whether that order, or a later one, was given. A supervisor that has died gave them all."""
        parent = multiprocessing.parent_process()
        return self.board.order >= order or (parent is not None and not parent.is_alive())

    def say_started(self) -> None:
        """Tells the supervisor that the child is at work."""
        self.report.send(StartReport())


def run_child(target: Callable[[ChildContext, Setup], None], context: ChildContext, setup: Setup) -> None:
    """The entry point of every child process.

    Args:
        target: Does the work; raises `StartError` where it can't.
        context: From the supervisor.
        setup: The target's own.
    """
    # Ctrl-C reaches the whole process group; the supervisor alone decides who ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A terminal that closes sends this to all; to the supervisor it means that the site file has changed.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    set_up_logging(context.log_level)
    try:
        target(context, setup)
    except StartError as error:
        context.report.send(StartReport(str(error)))
        sys.exit(CANNOT_START)


def set_up_logging(level: int) -> None:
    """One line an event on stderr, without the passwords of addresses; stdout belongs to results."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_passwords,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def mask_passwords(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides the passwords of addresses in all that an event says, a library's own words and tracebacks included."""
    for key, value in event.items():
        if value is not None and not isinstance(value, bool | int | float):
            event[key] = mask(str(value))
    return event


def limit_threads(threads: int) -> None:
    """Keeps the native libraries of this process to so many threads; call it before they are imported.

    Each would otherwise start one per core in each process, and spin while it waits. What the user has set stays.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
