from __future__ import annotations

import queue
from pathlib import Path

import pytest

from streamer.camera_worker import Item, LaneChange
from streamer.config import CameraConfig
from streamer.counters import Field, RowState
from streamer.frames import Frame, SessionEnd
from streamer.health import Accounts
from streamer.lanes import Lane, keep_alive_frames
from streamer.sighting_codec import encode
from streamer.sightings import CameraState, EndReason, SightingKind
from tests.streamer.book_builders import at
from tests.streamer.worker_builders import TOKENS, Bus, FakeStream, Rig, end, frame

pytestmark = pytest.mark.timeout(60)


def accounts(rig: Rig, camera: str = "cam1") -> Accounts:
    return Accounts.of(rig.board.camera(camera))


def test_a_file_is_followed_to_its_end_and_every_frame_accounted_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(30)), end()])})
    rig.run()

    kinds = [sighting.kind for sighting in rig.bus.sightings]
    assert (kinds[0], kinds[-1]) == (SightingKind.FIRST, SightingKind.END)
    assert rig.bus.sightings[-1].end_reason is EndReason.SOURCE_ENDED
    assert accounts(rig) == Accounts(30, 30, 0, 0, 1, 1, 0)
    assert rig.board.camera("cam1").state is RowState.FINISHED
    assert rig.client.droppable == {False}
    assert list(tmp_path.rglob("*.jpg")) == [tmp_path / "context/cam1/session/1.jpg"]


def test_points_travel_with_first_and_end_and_are_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(30)), end()])})
    rig.run()

    told = [embedding.tokens for sighting in rig.bus.sightings for embedding in sighting.embeddings]
    assert told == [TOKENS, TOKENS]
    assert rig.board.camera("cam1")[Field.TOKEN_BYTES] == 2 * len(TOKENS)


def test_the_last_message_of_a_file_says_that_it_is_finished(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(30)), end()])})
    rig.run()

    last = rig.bus.messages[-1]
    assert rig.bus.heartbeats[-1] is last
    assert rig.bus.heartbeats[-1].state is CameraState.FINISHED
    assert rig.bus.heartbeats[-1].watermark == at(29)
    assert not rig.bus.droppable[-1]
    assert [beat.state for beat in rig.bus.heartbeats[:-1]] == [CameraState.ALIVE] * (len(rig.bus.heartbeats) - 1)


def test_heartbeats_come_about_once_a_second_of_event_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(100)), end()])})
    rig.run()

    assert 8 <= len(rig.bus.heartbeats) <= 12
    assert rig.bus.heartbeats == sorted(rig.bus.heartbeats, key=lambda beat: beat.watermark)


def test_gated_frames_are_counted_and_not_detected(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(40)), end()])}, gated=True)
    rig.run()

    assert (accounts(rig).detected, accounts(rig).gated, accounts(rig).frames_in_flight) == (20, 20, 0)
    assert sum(rig.detector.batches) == 20
    assert {sighting.number for sighting in rig.bus.sightings} == {1}


def test_a_picture_whose_size_changes_midway_stops_nobody(tmp_path: Path) -> None:
    frames = [frame(index, size=200 if index < 15 else 120) for index in range(30)]
    rig = Rig(tmp_path, {"cam1": FakeStream([*frames, end()])}, gated=True)
    rig.run()

    assert accounts(rig).frames_in_flight == 0
    assert {sighting.number for sighting in rig.bus.sightings} == {1}


def test_dropped_frames_of_a_live_camera_are_counted(tmp_path: Path) -> None:
    frames = [frame(index) for index in range(40) if index % 3]
    rig = Rig(tmp_path, {"cam1": FakeStream([*frames, end(is_final=False)], session_hint=None)}, live=True)
    rig.run()

    assert accounts(rig).frames_in_flight == 0
    assert accounts(rig).dropped > 0
    assert rig.client.droppable == {True}


def test_a_new_connection_ends_the_tracklets_of_the_one_before(tmp_path: Path) -> None:
    frames: list[Frame | SessionEnd] = [
        *(frame(index, session="one") for index in range(20)),
        end(session="one", is_final=False),
        *(frame(index + 40, session="two") for index in range(20)),
    ]
    rig = Rig(tmp_path, {"cam1": FakeStream(frames, session_hint=None)}, live=True)
    rig.run()

    reasons = {s.session: s.end_reason for s in rig.bus.sightings if s.kind is SightingKind.END}
    assert reasons == {"one": EndReason.DISCONNECTED, "two": EndReason.SHUTDOWN}
    assert all(beat.state is CameraState.ALIVE for beat in rig.bus.heartbeats)


def test_a_stopped_file_is_not_called_finished(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([frame(index) for index in range(1000)])})
    rig.run(stop_after=5)

    assert all(beat.state is CameraState.ALIVE for beat in rig.bus.heartbeats)
    assert rig.board.camera("cam1").state is RowState.STOPPED
    assert (accounts(rig).frames_in_flight, accounts(rig).crops_in_flight) == (0, 0)


def published(bus: Bus) -> dict[str, bytes]:
    return {sighting.sighting_id: encode(sighting) for sighting in bus.sightings}


@pytest.mark.parametrize("fault", ["stop", "crash"])
def test_what_a_run_says_of_a_file_that_it_left_is_no_more_than_the_next_run_says_again(
    tmp_path: Path, fault: str
) -> None:
    frames: list[Frame | SessionEnd] = [frame(index) for index in range(300)]
    whole = Rig(tmp_path, {"cam1": FakeStream([*frames, end()])})
    whole.run()
    if fault == "stop":
        left = Rig(tmp_path, {"cam1": FakeStream([*frames])})
        left.run(stop_after=4)
    else:
        crash = SessionEnd("cam1", "session", EndReason.SHUTDOWN, is_final=True, message="the decode thread crashed")
        left = Rig(tmp_path, {"cam1": FakeStream([*frames[:40], crash])})
        left.run()

    assert left.bus.sightings
    assert all(published(whole.bus).get(name) == said for name, said in published(left.bus).items())
    assert all(beat.state is CameraState.ALIVE for beat in left.bus.heartbeats)
    assert left.board.camera("cam1").state is (RowState.STOPPED if fault == "stop" else RowState.FAILED)
    assert accounts(left).crops_in_flight == 0


def test_several_cameras_share_the_detector_s_batches(tmp_path: Path) -> None:
    streams = {
        name: FakeStream([*(frame(index, camera=name) for index in range(20)), end(camera=name)])
        for name in ("cam1", "cam2", "cam3")
    }
    rig = Rig(tmp_path, streams)
    rig.run()

    assert sum(rig.detector.batches) == 60
    assert max(rig.detector.batches) >= 3
    assert {s.camera for s in rig.bus.sightings if s.kind is SightingKind.END} == set(streams)


def test_a_file_does_not_run_ahead_of_the_others(tmp_path: Path) -> None:
    slow = FakeStream([*(frame(index, camera="slow", step_s=0.02) for index in range(500)), end(camera="slow")])
    fast = FakeStream([*(frame(index, camera="fast", step_s=1.0) for index in range(10)), end(camera="fast")])
    rig = Rig(tmp_path, {"slow": slow, "fast": fast}, max_lead_s=2.0)
    rig.run()

    reached = {"slow": at(0), "fast": at(0)}
    for beat in rig.bus.heartbeats:
        reached[beat.camera] = max(reached[beat.camera], beat.watermark)
        if beat.state is CameraState.ALIVE and beat.camera == "fast":
            assert (beat.watermark - reached["slow"]).total_seconds() <= 4.0


def test_a_bad_file_fails_alone_and_the_matcher_is_told(tmp_path: Path) -> None:
    broken = FakeStream([end(camera="broken")], session_hint="gone")
    broken.items[0] = end(camera="broken", session="gone")
    object.__setattr__(broken.items[0], "reason", EndReason.DISCONNECTED)
    good = FakeStream([*(frame(index) for index in range(20)), end()])
    rig = Rig(tmp_path, {"broken": broken, "cam1": good})
    rig.run()

    assert rig.board.camera("broken").state is RowState.FAILED
    assert rig.board.camera("broken").note == "broken: over"
    assert rig.board.camera("cam1").state is RowState.FINISHED
    assert [(beat.session, beat.state) for beat in rig.bus.heartbeats if beat.camera == "broken"] == [
        ("gone", CameraState.FINISHED)
    ]


def test_what_can_not_be_published_or_stored_is_counted_and_nothing_stops(tmp_path: Path) -> None:
    (tmp_path / "context").write_text("a file where a folder should be")
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(20)), end()])})
    rig.bus.is_full = True
    rig.run()

    row = rig.board.camera("cam1")
    assert row.count(Field.SIGHTINGS_LOST) >= 2
    assert row.count(Field.PICTURES_LOST) >= 1
    assert row.state is RowState.FINISHED


def test_what_the_stream_counts_is_reported_on_top_of_an_earlier_worker_s(tmp_path: Path) -> None:
    stream = FakeStream([*(frame(index) for index in range(5)), end(is_final=False)], session_hint=None)
    stream.counters.packets_lost, stream.counters.skew_s = 3, 0.25
    rig = Rig(tmp_path, {"cam1": stream}, live=True)
    rig.board.camera("cam1")[Field.PACKETS_LOST] = 4
    rig.run()

    row = rig.board.camera("cam1")
    assert (row[Field.PACKETS_LOST], row[Field.SKEW_S]) == (7, 0.25)


def test_dropped_crops_are_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(30)), end()])}, drops=True)
    rig.run()

    assert (accounts(rig).crops_asked, accounts(rig).crops_dropped, accounts(rig).crops_in_flight) == (1, 1, 0)


def test_a_restarted_worker_counts_on_and_writes_off_what_was_in_flight(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(10)), end()])})
    row = rig.board.camera("cam1")
    row[Field.DECODED], row[Field.DETECTED], row[Field.GATED], row[Field.CROPS_ASKED] = 100, 80, 10, 4
    rig.run()

    assert accounts(rig) == Accounts(110, 90, 10, 10, 5, 1, 4)


def test_a_failing_stage_brings_the_worker_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([frame(index) for index in range(1000)])})

    def fail(*_: object) -> None:
        raise RuntimeError("the network fell over")

    rig.detector.detect = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError, match="fell over"):
        rig.run()


@pytest.mark.parametrize(("fps", "seconds", "frames"), [(10, 2.0, 10), (25, 2.0, 25), (1, 0.5, 1)])
def test_a_parked_vehicle_is_looked_at_twice_before_it_counts_as_gone(fps: int, seconds: float, frames: int) -> None:
    assert keep_alive_frames(fps, seconds) == frames


def changed(rig: Rig, *, leaving: set[str], joining: dict[str, FakeStream]) -> LaneChange:
    """A change of live cameras; those that join get streams of their own."""
    cameras = {name: CameraConfig(id=name, url=f"rtsp://host/{name}") for name in joining}
    kept = tuple(camera for camera in rig.site.cameras if camera.id not in leaving)
    for name in joining:
        rig.board.add_camera(name)
    lanes = tuple(
        Lane(camera, joining[name], rig.board.camera(name), None)  # type: ignore[arg-type]
        for name, camera in cameras.items()
    )
    site = rig.site.model_copy(update={"cameras": (*kept, *cameras.values())})
    return LaneChange(site, frozenset(leaving), lanes, ())


def run_through(rig: Rig, change: LaneChange, *, after: int, streams: list[FakeStream]) -> None:
    """Runs, makes the change once so much was said, and ends when all streams are read."""
    is_told = False

    def should_stop() -> bool:
        nonlocal is_told
        if not is_told and len(rig.bus.messages) >= after:
            is_told = True
            rig.worker.change(change)
        return is_told and all(stream.is_stopped or not stream.items for stream in streams)

    rig.worker.run(should_stop)


def test_a_camera_joins_and_another_leaves_while_a_third_goes_on_undisturbed(tmp_path: Path) -> None:
    stays, goes = (FakeStream([frame(index, camera=name) for index in range(300)]) for name in ("cam1", "cam2"))
    comes = FakeStream([frame(index, camera="cam3") for index in range(50)])
    rig = Rig(tmp_path, {"cam1": stays, "cam2": goes}, live=True)
    goes.items += [frame(index, camera="cam2") for index in range(300, 5000)]
    run_through(rig, changed(rig, leaving={"cam2"}, joining={"cam3": comes}), after=8, streams=[stays, comes])

    rows = {name: rig.board.camera(name) for name in ("cam1", "cam2", "cam3")}
    assert (rows["cam1"].count(Field.DETECTED), rows["cam3"].count(Field.DETECTED)) == (300, 50)
    assert rows["cam2"].count(Field.DECODED) < 5000
    assert rows["cam2"].state is RowState.STOPPED
    assert all(Accounts.of(row).frames_in_flight == 0 for row in rows.values())
    ends = {said.camera: said.end_reason for said in rig.bus.sightings if said.kind is SightingKind.END}
    assert ends["cam2"] is EndReason.SHUTDOWN
    assert len({said.session for said in rig.bus.sightings if said.camera == "cam1"}) == 1
    finished = [beat.camera for beat in rig.bus.heartbeats if beat.state is CameraState.FINISHED]
    assert finished == ["cam2"]


def test_an_edited_camera_ends_before_it_begins_anew_and_counts_on(tmp_path: Path) -> None:
    before = FakeStream([frame(index, session="before") for index in range(5000)])
    after = FakeStream([frame(index, session="after") for index in range(40)])
    rig = Rig(tmp_path, {"cam1": before}, live=True)
    run_through(rig, changed(rig, leaving={"cam1"}, joining={"cam1": after}), after=5, streams=[after])

    sessions = [said.session for said in rig.bus.sightings]
    assert sessions == sorted(sessions, reverse=True)
    assert set(sessions) == {"before", "after"}
    row = rig.board.camera("cam1")
    assert row.count(Field.DECODED) == before.counters.decoded + 40
    assert accounts(rig).frames_in_flight == 0


def test_frames_of_a_still_road_wait_in_batches_of_bounded_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"cam1": FakeStream([*(frame(index) for index in range(500)), end()])})
    still = RarelyMoving()
    rig.worker._lanes[0].make_gate = lambda _: still
    sizes: list[int] = []
    hand_on = rig.worker._hand_on

    def noted(to: queue.Queue[list[Item]], batch: list[Item]) -> None:
        sizes.append(len(batch))
        hand_on(to, batch)

    rig.worker._hand_on = noted  # type: ignore[method-assign]
    rig.run()

    assert max(sizes) <= 4 * rig.site.detector.batch_size + 1
    assert accounts(rig).gated == 500


class RarelyMoving:
    def is_moving(self, image: object) -> bool:
        assert image is not None
        return False
