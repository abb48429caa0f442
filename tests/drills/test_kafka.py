"""A broker that freezes, dies, is cut off or is far away costs time, and no sighting."""

from __future__ import annotations

import gc
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from tests.drills.figures import note, size
from tests.drills.kafka_line import KafkaLine
from tests.servers.kafka import Broker
from tests.servers.proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.drill,
    pytest.mark.timeout(300),
    # The library leaves the socket of an attempt that was refused to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

#: How long the broker is out of reach: longer than a delivery may take.
FAULT_S = size(3, 20)
#: Each way.
LATENCY_S = 0.05
#: The durable broker's store is a slow one: each batch takes it several requests.
PATIENT = {"request_timeout_s": 4.0, "delivery_timeout_s": 6.0}


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Its sockets are gone before the next test, which tolerates none."""
    yield
    gc.collect()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as started:
        yield started


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """Before a broker that has its clients come this way."""
    broker = Broker()
    with TcpProxy(broker.address) as started:
        broker.advertise(started.address)
        with broker:
            yield started


def last(seconds: float) -> None:
    """A fault's duration is what the drill is about: there is nothing else to wait for."""
    threading.Event().wait(seconds)


def settle(line: KafkaLine, case: str, back_s: float) -> None:
    """Nothing lost, nothing doubled, all in order; and the figures noted."""
    account = line.settle()
    note("kafka", case, **asdict(account), back_s=round(back_s, 2))
    assert (account.lost, account.doubled, account.disordered) == (0, 0, 0)
    assert account.stored == account.published


def test_a_broker_that_freezes(tmp_path: Path, broker: Broker) -> None:
    with KafkaLine(tmp_path, broker.address) as line:
        before = line.published
        broker.freeze()
        last(FAULT_S)
        assert line.published > before, "cameras waited for the broker"
        broker.thaw()
        settle(line, f"broker frozen {FAULT_S} s", line.catch_up())
        assert line.forwarder.counts.rebuilt > 0


def test_a_broker_that_is_killed_and_comes_back_on_its_store(tmp_path: Path) -> None:
    with Broker(durable=True) as broker, KafkaLine(tmp_path, broker.address, **PATIENT) as line:
        broker.kill()
        last(FAULT_S)
        broker.start()
        settle(line, f"broker killed, away {FAULT_S} s", line.catch_up())


def test_connections_that_are_reset_again_and_again(tmp_path: Path, proxy: TcpProxy) -> None:
    times = size(3, 40)
    with KafkaLine(tmp_path, proxy.address) as line:
        backs_s = []
        for _ in range(times):
            proxy.reset_all()
            backs_s.append(line.catch_up())
        settle(line, f"connections reset {times} times", max(backs_s))


def test_a_network_that_swallows_everything(tmp_path: Path, proxy: TcpProxy) -> None:
    with KafkaLine(tmp_path, proxy.address) as line:
        before = line.published
        proxy.blackhole()
        last(FAULT_S)
        assert line.published > before, "cameras waited for the broker"
        proxy.heal()
        settle(line, f"network swallows all for {FAULT_S} s", line.catch_up())
        assert line.forwarder.counts.rebuilt > 0


def test_a_broker_that_is_far_away(tmp_path: Path, proxy: TcpProxy) -> None:
    with KafkaLine(tmp_path, proxy.address) as line:
        proxy.latency_s = LATENCY_S
        last(FAULT_S)
        settle(line, f"{2000 * LATENCY_S:.0f} ms there and back", line.catch_up())
        assert line.forwarder.counts.failed == 0, line.forwarder.trouble
