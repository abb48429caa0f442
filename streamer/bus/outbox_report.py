"""What of the outbox is told on the board, by the process that empties it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer.counters import Field

if TYPE_CHECKING:
    from streamer.bus.outbox import Outbox
    from streamer.counters import Row


def report_outbox(outbox: Outbox, row: Row) -> None:
    """Writes how the outbox stands into the row; takes some 10 us.

    Args:
        outbox: The site's.
        row: Of the stage that empties it.

    Raises:
        BusError: The outbox can't be read.
    """
    status = outbox.status()
    row[Field.OUTBOX_MESSAGES] = status.messages
    row[Field.OUTBOX_BYTES] = status.bytes
    row[Field.OUTBOX_OLDEST_S] = status.oldest_s
    row[Field.OUTBOX_DROPPED_DROPPABLE] = status.dropped.droppable
    row[Field.OUTBOX_DROPPED_OTHERS] = status.dropped.others
    row[Field.OUTBOX_DROPPED_OLD] = status.dropped.old
