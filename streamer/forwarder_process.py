"""The forwarder's life as a process: from the outbox into Kafka."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streamer.bus import BusError
from streamer.bus.factory import open_forwarder, open_outbox
from streamer.bus.outbox_report import report_outbox
from streamer.counters import Field, Order, RowState

if TYPE_CHECKING:
    from streamer.bus.kafka.forwarder import KafkaForwarder
    from streamer.bus.outbox import Outbox
    from streamer.children import ChildContext
    from streamer.counters import Row
    from streamer.setups import ForwarderSetup

_LOOK_S = 0.25
#: How long a forwarder may take to send what waits before it ends; what is left is sent by the next one.
EMPTY_TIMEOUT_S = 30.0


def run_forwarder(context: ChildContext, setup: ForwarderSetup) -> None:
    """Forwards until told to empty the outbox; ends when it is empty, or when Kafka doesn't take it."""
    forwarder, row = open_forwarder(setup.site), context.board.stage(setup.stage)
    if forwarder is None:
        return
    outbox = open_outbox(setup.site)
    forwarder.start()
    context.say_started()
    row.state = RowState.RUNNING
    while not context.is_told(Order.EMPTY_OUTBOX) and forwarder.is_alive:
        _report(forwarder, outbox, row)
        time.sleep(_LOOK_S)
    if not context.is_told(Order.EMPTY_OUTBOX):
        raise SystemExit("forwarder: its thread has ended by itself; start it anew")
    forwarder.stop(timeout_s=EMPTY_TIMEOUT_S)
    _report(forwarder, outbox, row)
    outbox.close()
    row.state = RowState.STOPPED


def _report(forwarder: KafkaForwarder, outbox: Outbox, row: Row) -> None:
    row[Field.HANDLED], row[Field.FAILURES] = forwarder.counts.sent, forwarder.counts.failed
    row.note = forwarder.trouble or ""
    try:
        report_outbox(outbox, row)
    except BusError as error:
        # The forwarder meets the same, and waits for better times.
        row.note = str(error)
    row[Field.ALIVE_S] = time.monotonic()
