"""Notes for measuring: when a sighting's frame was taken, and when the sighting stood in the database.

Both clocks are `time.monotonic`, which all processes of a host share. No decision reads them.
"""

from __future__ import annotations

import csv
import os
import threading
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.sighting_codec import decode
from streamer.sightings import Sighting, SightingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from streamer.bus import Consumer, Record

#: Frames whose moments are remembered; enough for the end of a tracklet that was lost for seconds.
_FRAMES = 4096


class SightingTrace:
    """Writes `sighting_id, kind, taken_s, published_s` for each sighting of one process. Flushes each line.

    Args:
        path: The CSV file, made at once.
        monotonic: Seconds.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._file = path.open("w", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        self._monotonic = monotonic
        self._taken: OrderedDict[tuple[str, datetime], float] = OrderedDict()

    def take(self, camera: str, captured_at: datetime) -> None:
        """A frame left its decoder."""
        self._taken[camera, captured_at] = self._monotonic()
        if len(self._taken) > _FRAMES:
            self._taken.popitem(last=False)

    def publish(self, sighting: Sighting) -> None:
        """A sighting went to the bus."""
        taken = self._taken.get((sighting.camera, sighting.occurred_at))
        if taken is not None:
            self._writer.writerow([sighting.sighting_id, sighting.kind.value, taken, self._monotonic()])

    def note_threads(self) -> None:
        """Writes `thread, cpu_s` of this process's threads into a file of its own, beside the other."""
        with self._path.with_suffix(".threads.csv").open("w", newline="") as file:
            csv.writer(file).writerows(thread_seconds().items())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TracingConsumer:
    """A consumer that writes `sighting_id, committed_s` once a sighting stands in the database.

    Args:
        consumer: Does the work.
        path: The CSV file, made at once; gone on with where it is there, since a matcher in trouble begins anew.
        monotonic: Seconds.
    """

    def __init__(self, consumer: Consumer, path: Path, monotonic: Callable[[], float]) -> None:
        self._consumer, self._monotonic = consumer, monotonic
        self._file = path.open("a", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        self._polled: list[Record] = []

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        """See `streamer.bus.Consumer`."""
        self._polled = list(self._consumer.poll(timeout_s=timeout_s, limit=limit))
        return self._polled

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        """See `streamer.bus.Consumer`; the database's transaction is over by then."""
        now = self._monotonic()
        self._consumer.commit(next_offsets)
        for record in self._polled:
            sighting_id = _sighting_id(record.payload)
            if sighting_id is not None:
                self._writer.writerow([sighting_id, now])

    def reject(self, record: Record, reason: str) -> None:
        """See `streamer.bus.Consumer`."""
        self._consumer.reject(record, reason)

    def take_lost(self) -> set[tuple[str, int]]:
        """See `streamer.bus.Consumer`."""
        return self._consumer.take_lost()

    def rewind(self) -> None:
        """See `streamer.bus.Consumer`."""
        self._consumer.rewind()

    def lag(self) -> int:
        """See `streamer.bus.Consumer`."""
        return self._consumer.lag()

    def close(self) -> None:
        """See `streamer.bus.Consumer`."""
        self._consumer.close()
        self._file.close()


def _sighting_id(payload: bytes) -> str | None:
    try:
        message = decode(payload)
    except SightingError:
        return None
    return message.sighting_id if isinstance(message, Sighting) else None


def thread_seconds() -> dict[str, float]:
    """CPU seconds of this process by Python's names of its threads.

    Threads of native libraries are summed as `native`, those that have ended as `ended`. Linux alone tells; elsewhere
    all is `ended`.
    """
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: dict[str, float] = defaultdict(float)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for task in Path("/proc/self/task").glob("*"):
        # The name in parentheses may hold blanks; utime and stime are the 14th and 15th field of the whole.
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        seconds[names.get(int(task.name), "native")] += (int(fields[11]) + int(fields[12])) * tick_s
    total = os.times()
    seconds["ended"] = max(0.0, total.user + total.system - sum(seconds.values()))
    return dict(seconds)
