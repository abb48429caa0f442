from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.modality import Modality
from streamer.frame_queue import FrameQueue
from streamer.frames import ArrayPicture, Frame, SessionEnd
from streamer.sightings import EndReason
from tests.streamer.fake_camera import drain

PICTURE = ArrayPicture(np.zeros((2, 2, 3), np.uint8))


def frame(session: int, index: int) -> Frame:
    return Frame("cam1", str(session), index, datetime(2026, 1, 1, tzinfo=UTC), Modality.VISIBLE, 2, 2, PICTURE)


def end(session: int) -> SessionEnd:
    return SessionEnd("cam1", str(session), EndReason.DISCONNECTED, is_final=False, message="gone")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["frame", "end", "take"]), max_size=60), st.integers(1, 4))
def test_a_live_queue_accounts_for_every_frame_and_ends_every_session_that_was_seen(
    steps: list[str], capacity: int
) -> None:
    queue = FrameQueue(capacity, drops_oldest=True)
    session = put = dropped = 0
    taken: list[Frame | SessionEnd] = []
    for step in steps:
        if step == "frame":
            dropped += queue.put(frame(session, put)) or 0
            put += 1
        elif step == "end":
            queue.put_end(end(session))
            session += 1
        elif (item := queue.take(0)) is not None:
            taken.append(item)
    waiting = drain(lambda: queue.take(0))
    assert len(waiting) <= 2 * capacity + 2
    taken += waiting
    frames = [item for item in taken if isinstance(item, Frame)]
    assert put == len(frames) + dropped
    assert [item.index for item in frames] == sorted(item.index for item in frames)
    ended = [item.session for item in taken if isinstance(item, SessionEnd)]
    seen_and_over = {item.session for item in frames if int(item.session) < session}
    assert seen_and_over <= set(ended)
    assert len(ended) == len(set(ended))


def test_a_closed_queue_takes_no_frame_but_gives_what_waits() -> None:
    queue = FrameQueue(1, drops_oldest=False)
    assert queue.put(frame(0, 0)) == 0
    queue.close()
    assert queue.put(frame(0, 1)) is None
    assert queue.take(1.0) is not None
    assert queue.take(1.0) is None
