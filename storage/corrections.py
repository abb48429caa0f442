"""What a person changes: vehicles merged and split, tracklets moved or confirmed, and all of it undone again.

A correction pins: the decisions on all tracklets of the vehicles that it concerns, those that stay where they are too,
become that person's word (`decided_by`), which no later look of the matcher's takes back. A confirmation pins what it
names and nothing else: two tracklets of one vehicle that are confirmed together are one vehicle by that person's word,
two of different vehicles are two.

An undo adds decisions as well. Each tracklet of the correction goes back to the vehicle that it belonged to before, and
to whoever had decided so before: one that had been the matcher's is the matcher's again, and may be moved by it.
Undoing what the matcher itself corrected, though, is to contradict it: there all tracklets concerned are pinned.
An undo may be undone in its turn, which brings the correction back.

Ids may be shortened, as wherever a person types them. Give these functions the session of `Database.transaction`; from
their first statement on nobody else decides until it ends.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from sqlalchemy import select

from storage.errors import CorrectionError, CorrectionNotFoundError, VehicleNotFoundError
from storage.history import Change, Correction, Decision, corrections, decisions
from storage.lookup import find_tracklet, find_vehicle
from storage.models import AssignmentRow, CorrectionRow, VehicleRow
from storage.records import MATCHER, AssignmentRecord
from storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

__all__ = ["MAX_NAME_LENGTH", "Change", "Correction", "confirm", "corrections", "merge", "move", "split", "undo"]

MAX_NAME_LENGTH = 64

_SPLIT_VEHICLES = UUID("0c2d7c1e-40c5-5a7e-8b11-7a5b1d3f9e64")


def merge(session: Session, keep: str, other: str, *, by: str, at: datetime, note: str = "") -> Correction:
    """Two vehicles are one: the tracklets of `other` go to `keep`.

    Raises:
        VehicleNotFoundError: One of them isn't known, or has no tracklet any more.
        CorrectionError: The two are one already.
    """
    desk = _Desk(session, by=by, at=at, note=note)
    kept, given = desk.vehicle(keep), desk.vehicle(other)
    if kept == given:
        raise CorrectionError(f"merge: {keep} and {other} are both vehicle {kept}")
    return desk.give("merge", (decision.said.tracklet_id for decision in desk.members({given})), kept)


def split(session: Session, tracklet_ids: Sequence[str], *, by: str, at: datetime, note: str = "") -> Correction:
    """These tracklets are another vehicle: they leave the one they share and become a new one.

    The new vehicle's id follows from the tracklets and the vehicle they leave.

    Raises:
        TrackletNotFoundError: One of them isn't known.
        CorrectionError: They are of several vehicles, or all that their vehicle has.
    """
    desk = _Desk(session, by=by, at=at, note=note)
    chosen = desk.tracklets("split", tracklet_ids)
    vehicles = sorted(set(chosen.values()))
    if len(vehicles) > 1:
        raise CorrectionError(f"split: the tracklets are of several vehicles: {', '.join(vehicles)}; split one by one")
    if len(desk.members(set(vehicles))) == len(chosen):
        raise CorrectionError(f"split: these are all tracklets of vehicle {vehicles[0]}: none would stay")
    return desk.give("split", chosen, _new_vehicle(session, vehicles[0], sorted(chosen)))


def move(
    session: Session, tracklet_ids: Sequence[str], to: str, *, by: str, at: datetime, note: str = ""
) -> Correction:
    """These tracklets, of whatever vehicles, belong to another one that is known.

    Raises:
        TrackletNotFoundError: One of the tracklets isn't known.
        VehicleNotFoundError: The vehicle isn't known, or has no tracklet any more.
        CorrectionError: All of them belong to it already.
    """
    desk = _Desk(session, by=by, at=at, note=note)
    chosen, vehicle_id = desk.tracklets("move", tracklet_ids), desk.vehicle(to)
    if set(chosen.values()) == {vehicle_id}:
        raise CorrectionError(f"move: vehicle {vehicle_id} has these tracklets already")
    return desk.give("move", chosen, vehicle_id)


def confirm(session: Session, tracklet_ids: Sequence[str], *, by: str, at: datetime, note: str = "") -> Correction:
    """These tracklets are where they belong: the matcher leaves each of them to the vehicle that it has.

    Raises:
        TrackletNotFoundError: One of them isn't known.
        CorrectionError: One has no vehicle yet; or all of them are this person's word already.
    """
    desk = _Desk(session, by=by, at=at, note=note)
    chosen = desk.tracklets("confirm", tracklet_ids)
    return desk.confirm(chosen)


def undo(session: Session, correction_id: int, *, by: str, at: datetime, note: str = "") -> Correction:
    """Takes a correction back, a person's or the matcher's: its tracklets are decided as they were before.

    Raises:
        CorrectionNotFoundError: No such correction.
        CorrectionError: It has been taken back, or a later decision stands on one of its tracklets.
    """
    desk = _Desk(session, by=by, at=at, note=note)
    made_by = _maker(session, correction_id)
    restored = _as_before(session, correction_id, at)
    return desk.correct("undo", desk.pinned(restored) if made_by == MATCHER else restored, undoes=correction_id)


class _Desk:
    """Where one person makes one correction. From here on nobody else decides until the transaction ends."""

    def __init__(self, session: Session, *, by: str, at: datetime, note: str) -> None:
        if not by or by == MATCHER or len(by) > MAX_NAME_LENGTH:
            raise CorrectionError(
                f"by: wanted a person's name of at most {MAX_NAME_LENGTH} letters, other than {MATCHER!r}; got {by!r}"
            )
        self._session = session
        self._by, self._at, self._note = by, at, note
        self._writer = Writer(session)
        self._writer.hold_decisions()

    def vehicle(self, vehicle_id: str) -> str:
        """The whole id of a vehicle that has tracklets."""
        found = find_vehicle(self._session, vehicle_id).vehicle_id
        if not self.members({found}):
            raise VehicleNotFoundError(f"vehicle {found}: its tracklets have been given to other vehicles")
        return found

    def tracklets(self, kind: str, tracklet_ids: Iterable[str]) -> dict[str, str]:
        """The whole ids of tracklets, each with its vehicle."""
        names = sorted({find_tracklet(self._session, tracklet_id).tracklet_id for tracklet_id in tracklet_ids})
        if not names:
            raise CorrectionError(f"{kind}: which tracklets?")
        current = decisions(self._session, AssignmentRow.is_current, AssignmentRow.tracklet_id.in_(names))
        chosen = {decision.said.tracklet_id: decision.said.vehicle_id for decision in current}
        for name in names:
            if name not in chosen:
                raise CorrectionError(f"{kind}: tracklet {name} has no vehicle yet")
        return chosen

    def members(self, vehicle_ids: set[str]) -> list[Decision]:
        """The current decisions on all tracklets of these vehicles."""
        return decisions(self._session, AssignmentRow.is_current, AssignmentRow.vehicle_id.in_(vehicle_ids))

    def give(self, kind: str, tracklet_ids: Iterable[str], vehicle_id: str) -> Correction:
        """Gives tracklets to a vehicle, and confirms all others of the vehicles concerned."""
        chosen = set(tracklet_ids)
        current = decisions(self._session, AssignmentRow.is_current, AssignmentRow.tracklet_id.in_(chosen))
        concerned = self.members({decision.said.vehicle_id for decision in current} | {vehicle_id})
        return self.correct(
            kind,
            [
                self._given(kind, decision.said, vehicle_id)
                if decision.said.tracklet_id in chosen and decision.said.vehicle_id != vehicle_id
                else self._confirmed(decision.said)
                for decision in concerned
            ],
        )

    def confirm(self, tracklet_ids: Iterable[str]) -> Correction:
        """Leaves tracklets where they are, as this person's word; others of their vehicles are not concerned."""
        names = sorted(tracklet_ids)
        current = decisions(self._session, AssignmentRow.is_current, AssignmentRow.tracklet_id.in_(names))
        return self.correct("confirm", [self._confirmed(decision.said) for decision in current])

    def pinned(self, restored: Sequence[AssignmentRecord]) -> list[AssignmentRecord]:
        """The same as this person's word, with all others of the vehicles concerned that are not somebody's already."""
        names = {said.tracklet_id for said in restored}
        current = decisions(self._session, AssignmentRow.is_current, AssignmentRow.tracklet_id.in_(names))
        concerned = self.members({said.vehicle_id for said in (*restored, *(found.said for found in current))})
        others = [found.said for found in concerned if found.said.tracklet_id not in names]
        confirmed = [self._confirmed(said) for said in others if said.decided_by == MATCHER]
        return [*(replace(said, decided_by=self._by) for said in restored), *confirmed]

    def correct(self, kind: str, said: Sequence[AssignmentRecord], *, undoes: int | None = None) -> Correction:
        """Writes it down, and reads it back."""
        correction_id = self._writer.correct(
            kind, said, made_by=self._by, made_at=self._at, note=self._note, undoes=undoes
        )
        if correction_id is None:
            raise CorrectionError(f"{kind}: nothing would change")
        return corrections(self._session, limit=1)[0]

    def _given(self, kind: str, said: AssignmentRecord, vehicle_id: str) -> AssignmentRecord:
        return AssignmentRecord(
            said.tracklet_id,
            vehicle_id,
            kind,
            # A vehicle still in view stays open: more is said of it, and its end makes it final.
            is_provisional=said.is_provisional,
            score=None,
            margin=None,
            modality_pair=None,
            transit_s=None,
            model_id="",
            decided_at=self._at,
            evidence={"rule": f"given to this vehicle by {self._by}, from vehicle {said.vehicle_id}"},
            decided_by=self._by,
        )

    def _confirmed(self, said: AssignmentRecord) -> AssignmentRecord:
        """What was said before, with the evidence it stands on, as this person's word: that it stays."""
        evidence = {**said.evidence, "confirmed": True}
        return replace(said, reason="confirm", decided_at=self._at, evidence=evidence, decided_by=self._by)


class _Books:
    """All decisions on the tracklets of a correction, and which of them only brought an earlier one back."""

    def __init__(self, session: Session, correction_id: int) -> None:
        own = AssignmentRow.correction_id == correction_id
        self._rows = decisions(session, AssignmentRow.tracklet_id.in_(select(AssignmentRow.tracklet_id).where(own)))
        self._by_number = {row.assignment_id: row for row in self._rows}
        corrected = [row for row in self._rows if row.correction_id is not None]
        self._by_correction = {(row.correction_id, row.said.tracklet_id): row for row in corrected}
        self._undoes = {later: earlier for earlier, later in _undone(session).items()}
        self.current = {row.said.tracklet_id: row for row in self._rows if row.is_current}
        self.own = [row for row in self._rows if row.correction_id == correction_id]

    def before(self, decision: Decision) -> Decision | None:
        """What it took the place of."""
        return None if decision.supersedes is None else self._by_number[decision.supersedes]

    def origin(self, decision: Decision) -> Decision:
        """The decision that is in force again, or still, by this one: an undo, or a vehicle's end, says nothing new."""
        while (source := self._source(decision)) is not None:
            decision = source
        return decision

    def _source(self, decision: Decision) -> Decision | None:
        before = self.before(decision)
        if before is None:
            return None
        if decision.correction_id is None:
            return before if _place(before) == _place(decision) else None
        undone = self._by_correction.get((self._undoes.get(decision.correction_id), decision.said.tracklet_id))
        return None if undone is None else self.before(undone)


def _place(decision: Decision) -> tuple[str, str]:
    return decision.said.vehicle_id, decision.said.decided_by


def _as_before(session: Session, correction_id: int, at: datetime) -> list[AssignmentRecord]:
    """What was said of the correction's tracklets before it, to be said again now."""
    books = _Books(session, correction_id)
    restored = []
    for decision in books.own:
        current, before = books.current[decision.said.tracklet_id], books.before(decision)
        standing = books.origin(current)
        if standing.assignment_id != books.origin(decision).assignment_id:
            raise CorrectionError(f"correction {correction_id}: {_obstacle(session, standing)}")
        if before is None:
            raise CorrectionError(
                f"correction {correction_id}: tracklet {current.said.tracklet_id} had no vehicle before"
            )
        evidence = {**before.said.evidence, "restores": before.assignment_id}
        said = replace(before.said, reason="undo", decided_at=at, evidence=evidence)
        restored.append(replace(said, is_provisional=current.said.is_provisional))
    return restored


def _obstacle(session: Session, standing: Decision) -> str:
    tracklet = f"tracklet {standing.said.tracklet_id}"
    if standing.correction_id is None:
        return f"{standing.said.decided_by} has decided anew on {tracklet} since"
    row = session.execute(
        select(CorrectionRow.kind, CorrectionRow.made_by).where(CorrectionRow.correction_id == standing.correction_id)
    ).one()
    return (
        f"correction {standing.correction_id} ({row.kind} by {row.made_by}) has decided on {tracklet} since; "
        "undo that one first"
    )


def _maker(session: Session, correction_id: int) -> str:
    """Who made a correction that is still to be undone."""
    asked = select(CorrectionRow.made_by).where(CorrectionRow.correction_id == correction_id)
    made_by = session.execute(asked).scalar_one_or_none()
    if made_by is None:
        raise CorrectionNotFoundError(f"correction {correction_id}: not known")
    undone = _undone(session)
    if correction_id not in undone:
        return made_by
    chain = [correction_id]
    while chain[-1] in undone:
        chain.append(undone[chain[-1]])
    # Of an odd number the last one brought it back.
    again = (
        f"brought back by correction {chain[-1]}: undo that one"
        if len(chain) % 2
        else f"undo {chain[-1]} to have it again"
    )
    raise CorrectionError(f"correction {correction_id}: taken back by correction {chain[1]} already; {again}")


def _undone(session: Session) -> dict[int, int]:
    """The corrections that were taken back, each with the one that did it."""
    asked = select(CorrectionRow.undoes, CorrectionRow.correction_id).where(CorrectionRow.undoes.is_not(None))
    return {undoes: correction_id for undoes, correction_id in session.execute(asked) if undoes is not None}


def _new_vehicle(session: Session, leaves: str, tracklet_ids: Sequence[str]) -> str:
    """The id of a vehicle that never was: the same for the same split, another where that one was made before."""
    candidates = (str(uuid5(_SPLIT_VEHICLES, "\n".join([leaves, *tracklet_ids, str(n)]))) for n in count())
    known = select(VehicleRow.vehicle_id)
    return next(one for one in candidates if session.execute(known.where(VehicleRow.vehicle_id == one)).first() is None)
