"""What a matcher must still know of its cameras' sessions after it was started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamer.sighting_codec import encode
from streamer.sightings import Message, SightingKind
from tests.streamer.matcher.matcher_builders import heartbeat, sighting
from tests.streamer.matcher.test_worker import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST, END = SightingKind.FIRST, SightingKind.END

#: Camera b begins late, but within the time that a silent camera is waited for.
LATE_CAMERA: list[Message] = [
    heartbeat("a", 0),
    sighting("a", 1, 0, END, (1, 5), vehicle=1),
    heartbeat("a", 20),
    heartbeat("a", 22),
    heartbeat("b", 0),
    sighting("b", 1, 0, END, (0.5, 5.5), vehicle=1),
    heartbeat("b", 20),
    heartbeat("a", 30, finished=True),
    heartbeat("b", 30, finished=True),
]
#: Camera a plays a file of the evening, then one of the morning.
EVENING_BEFORE_MORNING: list[Message] = [
    heartbeat("a", 9000, session="evening"),
    sighting("a", 1, 0, END, (9001, 9005), vehicle=1, session="evening"),
    heartbeat("a", 9010, session="evening", finished=True),
    heartbeat("b", 0),
    heartbeat("a", 0, session="morning"),
    sighting("a", 1, 0, FIRST, (1, 2), vehicle=2, session="morning"),
    sighting("b", 1, 0, END, (1, 9), vehicle=2),
    heartbeat("b", 20),
    sighting("a", 1, 1, END, (1, 10.5), vehicle=2, session="morning"),
    heartbeat("a", 20, session="morning", finished=True),
    heartbeat("b", 30, finished=True),
]


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    made: list[Site] = []

    def make() -> Site:
        made.append(Site(tmp_path / f"site{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


@pytest.mark.parametrize("story", [LATE_CAMERA, EVENING_BEFORE_MORNING])
def test_a_restart_before_any_message_changes_no_decision(new_site: Callable[[], Site], story: list[Message]) -> None:
    payloads = [encode(message) for message in story]
    undisturbed = new_site()
    undisturbed.play(payloads)

    for steps in range(1, len(story)):
        disturbed = new_site()
        disturbed.play(payloads, batch=1, steps=steps)
        disturbed.play(payloads)
        assert disturbed.partition() == undisturbed.partition()


def test_a_camera_that_begins_late_is_waited_for_all_the_same_after_a_restart(new_site: Callable[[], Site]) -> None:
    payloads = [encode(message) for message in LATE_CAMERA]
    crossing = new_site()
    crossing.play(payloads[:3])

    worker, _ = crossing.play(payloads[:4])

    assert worker.counters.decided == 0
