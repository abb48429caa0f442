from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid.calibration import save_calibration
from storage.audit import Inquiry, note
from storage.crop_store import CropStore
from storage.database import Database, Session
from storage.errors import StorageError
from storage.forget import FORGET, forget
from storage.matcher_state import load_tracklets
from storage.statements import hold_decisions
from storage.trajectories import vehicles
from storage.writer import Writer
from streamer.bus import Record
from streamer.matcher.decision import vehicle_id_of
from streamer.matcher.worker import MatcherWorker
from streamer.sighting_codec import encode
from streamer.sightings import Message, Sighting, SightingKind
from tests.streamer.matcher.matcher_builders import CALIBRATION, at, heartbeat, sighting, site

FIRST, UPDATE, END = SightingKind.FIRST, SightingKind.UPDATE, SightingKind.END


class Tape:
    """A bus that plays recorded messages from an offset, some of them at a time."""

    def __init__(self, payloads: Sequence[bytes], start: int, batch: int) -> None:
        self._payloads, self._next, self._batch = payloads, start, batch
        self.stored: Callable[[], int] = lambda: start
        self.lost: set[tuple[str, int]] = set()
        self.rejected: list[tuple[int, str]] = []
        self.committed: dict[tuple[str, int], int] = {}

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        assert timeout_s >= 0
        end = min(self._next + min(self._batch, limit), len(self._payloads))
        records = [Record("sightings", 0, n, "main", self._payloads[n]) for n in range(self._next, end)]
        self._next = end
        return records

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        self.committed.update(next_offsets)

    def reject(self, record: Record, reason: str) -> None:
        self.rejected.append((record.offset, reason))

    def take_lost(self) -> set[tuple[str, int]]:
        lost, self.lost = self.lost, set()
        return lost

    def rewind(self) -> None:
        self._next = self.stored()

    def lag(self) -> int:
        return len(self._payloads) - self._next

    def close(self) -> None:
        pass


#: Vehicle 1 passes a, then b; vehicle 2 is seen in b alone.
STORY: list[Message] = [
    heartbeat("a", 0),
    heartbeat("b", 0),
    sighting("a", 1, 0, FIRST, (1, 2), vehicle=1),
    sighting("a", 1, 1, END, (1, 5), vehicle=1),
    sighting("b", 1, 0, FIRST, (8, 9), vehicle=2),
    heartbeat("a", 10),
    sighting("b", 2, 0, FIRST, (9, 10), vehicle=1),
    sighting("b", 1, 1, END, (8, 12), vehicle=2),
    sighting("b", 2, 1, END, (9, 13), vehicle=1),
    heartbeat("a", 20, finished=True),
    heartbeat("b", 20, finished=True),
]


class Site:
    """A database and crops folder that workers come and go on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        calibration = folder / "calibration.json"
        save_calibration(calibration, CALIBRATION)
        config = site(f"sqlite:///{folder}/site.db", settle_s=3.0, calibration=str(calibration))
        self.config = config.model_copy(update={"crops_dir": folder / "crops"})
        self.database = Database.open(self.config.database)
        self.crops = CropStore(folder / "crops")

    def play(self, payloads: Sequence[bytes], *, batch: int = 256, steps: int = 1000) -> tuple[MatcherWorker, Tape]:
        """Lets a new worker go on from the database's offset."""
        tape = Tape(payloads, self.stored(), batch)
        worker = MatcherWorker(self.config, self.database, tape, self.crops)
        while steps and worker.step(timeout_s=0.0):
            steps -= 1
        return worker, tape

    def stored(self) -> int:
        """Where the database says to read on."""
        with self.database.transaction() as session:
            return Writer(session).next_offset("sightings", 0) or 0

    def partition(self) -> dict[str, tuple[str, str | None]]:
        with self.database.snapshot() as session:
            return {
                stored.tracklet.tracklet_id: (stored.assignment.vehicle_id, stored.assignment.reason)
                for stored in load_tracklets(session, "main", seen_since=None)
                if stored.assignment is not None
            }

    def end_reasons(self) -> dict[str, str | None]:
        with self.database.snapshot() as session:
            found = load_tracklets(session, "main", seen_since=None)
        return {stored.tracklet.tracklet_id: stored.tracklet.end_reason for stored in found}


@pytest.fixture
def crossing(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.database.close()


def _payloads(messages: Sequence[Message]) -> list[bytes]:
    return [encode(message) for message in messages]


def test_a_vehicle_that_passes_both_cameras_is_one(crossing: Site) -> None:
    worker, _ = crossing.play(_payloads(STORY))

    with crossing.database.snapshot() as session:
        found = vehicles(session, min_cameras=2)
    assert [vehicle.cameras for vehicle in found] == [("a", "b")]
    assert (worker.counters.vehicles, worker.counters.linked) == (2, 1)


def test_a_provisional_identity_is_there_before_the_tracklet_ends(crossing: Site) -> None:
    crossing.play(_payloads(STORY[:3]))

    with crossing.database.snapshot() as session:
        (stored,) = load_tracklets(session, "main", seen_since=None)
    assert stored.assignment is not None
    assert stored.assignment.is_provisional
    assert stored.tracklet.end_reason is None


def test_crops_are_kept_below_the_crop_folder(crossing: Site) -> None:
    crossing.play(_payloads(STORY[:3]))

    with crossing.database.snapshot() as session:
        (stored,) = load_tracklets(session, "main", seen_since=None)
    name = stored.embeddings[0].crop_image
    assert name is not None
    assert crossing.crops.load(name) == b"\xff\xd8jpeg"


def test_a_message_that_cannot_be_read_is_put_aside_and_the_rest_flows(crossing: Site) -> None:
    payloads = _payloads(STORY)
    payloads.insert(3, b"\x01nonsense")

    worker, tape = crossing.play(payloads)

    assert [offset for offset, _ in tape.rejected] == [3]
    assert worker.counters.rejected == 1
    assert len(crossing.partition()) == 3


def test_a_tracklet_whose_end_never_comes_is_closed_with_its_session(crossing: Site) -> None:
    story = [message for message in STORY if message != STORY[8]]

    worker, _ = crossing.play(_payloads(story))

    assert worker.counters.lost == 1
    assert crossing.end_reasons()["b/s/2"] == "session_lost"


def test_a_reconnect_closes_what_the_old_session_left_open_and_nothing_else(crossing: Site) -> None:
    story: list[Message] = [
        heartbeat("a", 0),
        heartbeat("b", 0, finished=True),
        sighting("a", 1, 0, FIRST, (1, 2), vehicle=1),
        heartbeat("a", 20, session="t"),
        sighting("a", 1, 0, FIRST, (21, 22), vehicle=2, session="t"),
        # Late, of the session that was left: its camera has gone on, and so has the tracklet of the new one.
        heartbeat("a", 3),
        heartbeat("a", 40, session="t"),
        sighting("a", 1, 1, END, (21, 41), vehicle=2, session="t"),
        heartbeat("a", 60, session="t", finished=True),
    ]

    worker, _ = crossing.play(_payloads(story))

    assert worker.counters.lost == 1
    assert crossing.end_reasons() == {"a/s/1": "session_lost", "a/t/1": "left"}


def test_what_comes_after_the_end_opens_a_tracklet_no_more(crossing: Site) -> None:
    late = [*STORY, sighting("b", 2, 2, UPDATE, (13, 14), vehicle=1), sighting("b", 2, 3, END, (14, 15), vehicle=1)]
    late.append(heartbeat("b", 30, finished=True))

    crossing.play(_payloads(STORY))
    before = crossing.partition()
    worker, _ = crossing.play(_payloads(late))

    assert worker.counters.decided == 0
    assert crossing.partition() == before


def test_a_partition_that_somebody_else_has_read_is_read_on_from_where_they_are(
    crossing: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[object] = []
    payloads = _payloads(STORY)
    stale, tape = crossing.play(payloads[:6], batch=2, steps=2)
    tape.stored = crossing.stored
    crossing.play(payloads[:6])
    before = replace(stale.counters)
    # It finds out before it works: the other one waits for whatever it has begun to write.
    monkeypatch.setattr(Writer, "store_sighting", lambda *known: handled.append(known))

    assert stale.step(timeout_s=0.0) == 0

    assert stale.counters == replace(before, begun_anew=1)
    assert handled == []
    assert tape.lag() == 0
    assert crossing.stored() == 6


@pytest.mark.parametrize("others", range(1, len(STORY), 3))
def test_what_another_matcher_decided_meanwhile_is_known_when_a_partition_comes_back(
    tmp_path: Path, others: int
) -> None:
    undisturbed, crossing = Site(tmp_path / "straight"), Site(tmp_path / "shared")
    undisturbed.play(_payloads(STORY))
    payloads = _payloads(STORY)
    worker, tape = crossing.play(payloads, batch=1, steps=2)
    tape.stored = crossing.stored
    crossing.play(payloads, batch=1, steps=others)

    tape.lost = {("sightings", 0)}
    tape.rewind()
    while worker.step(timeout_s=0.0):
        pass

    assert worker.counters.begun_anew == 0
    assert crossing.partition() == undisturbed.partition()
    for one in (undisturbed, crossing):
        one.database.close()


def test_a_transaction_that_failed_leaves_nothing_behind(
    crossing: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = Site(tmp_path / "straight")
    straight, _ = undisturbed.play(_payloads(STORY), batch=2)
    worker, tape = crossing.play(_payloads(STORY), batch=2, steps=0)
    tape.stored = crossing.stored

    transaction = Database.transaction

    @contextmanager
    def refuse(self: Database) -> Iterator[Session]:
        with transaction(self) as session:
            yield session
            raise StorageError("database: disk full")

    while crossing.stored() < len(STORY):
        with monkeypatch.context() as patch:
            patch.setattr(Database, "transaction", refuse)
            with pytest.raises(StorageError, match="disk full"):
                worker.step(timeout_s=0.0)
        tape.rewind()
        worker.step(timeout_s=0.0)

    assert crossing.partition() == undisturbed.partition()
    assert worker.counters == straight.counters
    undisturbed.database.close()


@pytest.mark.parametrize("is_heard_of", [True, False])
def test_a_vehicle_that_is_forgotten_meanwhile_does_not_come_back(
    crossing: Site, monkeypatch: pytest.MonkeyPatch, *, is_heard_of: bool
) -> None:
    # Vehicle 1 is decided and forgotten before it comes to b, where its looks would tell.
    before = [*STORY[:2], *STORY[2:4], heartbeat("a", 12), heartbeat("b", 7)]
    payloads = _payloads([*before, STORY[6], STORY[8], *STORY[-2:]])
    worker, _ = crossing.play(payloads, batch=1, steps=len(before))
    ((vehicle_id, _),) = crossing.partition().values()
    if not is_heard_of:
        monkeypatch.setattr("streamer.matcher.worker.newest_forgetting", lambda _: 0)
    with crossing.database.transaction() as session:
        hold_decisions(session)
        note(session, Inquiry(FORGET, "anna", vehicle_id), at(0))
        forget(session, crossing.crops, vehicle_id)

    while worker.step(timeout_s=0.0):
        pass

    (found,) = crossing.partition()
    assert found.startswith("b/")
    if is_heard_of:
        assert crossing.partition()[found] == (vehicle_id_of(found), "new")


def test_a_tracklet_that_is_forgotten_before_it_is_decided_stays_so(
    crossing: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.matcher.worker.newest_forgetting", lambda _: 0)
    payloads = _payloads([*STORY[:4], *STORY[-2:]])
    worker, _ = crossing.play(payloads, batch=1, steps=4)
    ((vehicle_id, _),) = crossing.partition().values()
    with crossing.database.transaction() as session:
        forget(session, crossing.crops, vehicle_id)

    while worker.step(timeout_s=0.0):
        pass

    assert crossing.partition() == {}
    assert worker.counters.unknown == 1
    with crossing.database.snapshot() as session:
        assert vehicles(session) == []


def test_vectors_of_another_model_are_kept_but_not_compared(crossing: Site) -> None:
    strange = [replace(m, model_id="other-2") if isinstance(m, Sighting) else m for m in STORY]

    worker, _ = crossing.play(_payloads(strange))

    assert worker.counters.uncompared == 6
    assert len({vehicle for vehicle, _ in crossing.partition().values()}) == 3


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crashes=st.lists(st.integers(0, 4), max_size=4),
    batch=st.integers(1, 4),
    again=st.lists(st.tuples(st.integers(0, len(STORY)), st.integers(2, 8)), max_size=3),
)
def test_crashes_and_second_deliveries_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, crashes: list[int], batch: int, again: list[tuple[int, int]]
) -> None:
    undisturbed = Site(tmp_path_factory.mktemp("straight"))
    undisturbed.play(_payloads(STORY))
    messages = list(STORY)
    for place, which in again:
        messages.insert(max(place, messages.index(STORY[which]) + 1), STORY[which])
    disturbed = Site(tmp_path_factory.mktemp("crashing"))

    for steps in crashes:
        disturbed.play(_payloads(messages), batch=batch, steps=steps)
    disturbed.play(_payloads(messages), batch=batch)

    assert disturbed.partition() == undisturbed.partition()
    undisturbed.database.close()
    disturbed.database.close()
