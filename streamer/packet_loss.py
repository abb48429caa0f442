"""Counts packets that the network lost.

The video library tells of them in its log alone: nothing fails, nothing is marked. What is captured belongs to the
thread that reads, so that each camera's thread counts its own camera's packets.
"""

from __future__ import annotations

import functools
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import av.logging

if TYPE_CHECKING:
    from collections.abc import Iterator

_MISSED = re.compile(r"RTP: missed (\d+) packets")


class PacketLoss:
    """Packets lost so far, by one camera's thread. The constructor turns the library's log on, once a process."""

    def __init__(self) -> None:
        self.packets = 0
        _listen()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what is lost while the block reads; in the thread that reads."""
        with av.logging.Capture() as messages:
            try:
                yield
            finally:
                self.packets += missed(text for _, _, text in messages)


def missed(messages: Iterator[str]) -> int:
    """How many packets such lines of the library's log say were lost."""
    return sum(int(found.group(1)) for text in messages if (found := _MISSED.search(text)))


@functools.cache
def _listen() -> None:
    # What nobody captures would reach the program's own log, with addresses and their passwords in it.
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
    # Two losses of the same size are two losses.
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.WARNING)
