"""Hours of sightings through outbox, Kafka, matcher and database: nothing is left over, in files or in memory."""

from __future__ import annotations

import os
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from streamer.sightings import Sighting
from tests.drills.figures import note, size
from tests.servers.kafka import Broker, broker_binary

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [pytest.mark.integration, pytest.mark.drill]

HOURS = size(1, 12)
#: So few hours are mostly caches that fill; a day's slope is what `benchmarks/soak.py` is for.
MAX_GROWTH_MIB = 30.0
#: Hours at full speed pass in seconds: the client that tells of identities connects in the midst of them, once.
LATE_CLIENT_FILES = 4
OURS = ("forwarder", "matcher")


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a script, which is no package's module
    """The benchmark, which imports its neighbours as a script does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("soak")


def test_hours_leave_no_files_open_and_little_memory(tmp_path: Path, soak: Any) -> None:  # noqa: ANN401 - as above
    broker_binary()
    config, looks = soak.TrafficConfig(60 * HOURS, 4, 60.0, heartbeat_s=30.0), soak.load_looks()
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        traffic = soak.Traffic(config, looks)
        site = soak.soaked_site(tmp_path, traffic, broker.address, None)
        pipeline = stack.enter_context(soak.Pipeline(site, {"feeder": os.getpid()}))
        outcome = soak.soak(pipeline, traffic, speed=0)
    warm, last = outcome.samples[len(outcome.samples) // 3], outcome.samples[-1]
    assert outcome.restarts == 0
    assert outcome.handled >= outcome.published
    # Drawn once more, as it was; some of it arrives twice.
    messages = [arrival.message for arrival in soak.Traffic(config, looks).arrivals()]
    sightings = len({message.sighting_id for message in messages if isinstance(message, Sighting)})
    assert outcome.rows["sightings"] == sightings > 0
    for name in OURS:
        assert outcome.growth[name].files <= LATE_CLIENT_FILES
        assert last.rss_mib[name] - warm.rss_mib[name] < MAX_GROWTH_MIB
    note(
        "soak",
        f"{HOURS} simulated hours",
        published=outcome.published,
        restarts=outcome.restarts,
        new_files=sum(outcome.growth[name].files for name in OURS),
        grown_mib=round(sum(last.rss_mib[name] - warm.rss_mib[name] for name in OURS), 1),
        lost=sightings - outcome.rows["sightings"],
    )
