"""What a person had better look at: the decisions that the matcher was least sure of.

Of two kinds: a link that little speaks for, and a near miss, where a tracklet became a new vehicle although another one
fitted. Both are ranked by how sure the matcher could be of what it did, the least sure first: of a link by its
probability, of a near miss by the probability that it was none.

What a person has decided is not asked again, and what is still in view is left to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal_column, select, union_all

from storage.answers import halved, probability
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

#: The latest decisions that are searched for near misses: their evidence is read one by one.
NEAR_MISSES_AMONG = 5000
#: With less probability a candidate was no near miss.
LEAST_PROBABILITY = 0.1
#: So many times more are read than are wanted, since some turn out to be settled.
_SPARE = 4
#: Links with the lowest scores that are looked through for those at some cameras.
_MOST_LINKS = 5000
#: Where it isn't told what a link was made to, so many tracklets of a vehicle are looked through for it, those decided
#: on last; and of so many vehicles.
_MOST_MEMBERS, _MOST_VEHICLES = 50, 100


@dataclass(frozen=True, slots=True)
class DoubtfulLink:
    """A decision that a person should look at.

    To say that it is right, confirm both tracklets together (`storage.corrections.confirm`). To say that it is wrong,
    split the tracklet off where it is a `link`, and merge the two vehicles where it is a `near miss`.

    Attributes:
        kind: `link`: taken for the other's vehicle. `near miss`: taken for another vehicle than the other's.
        tracklet_id: The tracklet that was decided on.
        vehicle_id: Its vehicle by now.
        camera: Where it was seen.
        started_at: Its first frame.
        ended_at: Its last frame.
        probability: That the two are one vehicle, as the matcher saw it.
        margin: By how much the score beat the next best candidate's; None without one.
        modality_pair: The two bands compared; None where it isn't known.
        reason: Of the decision, in a word.
        crop_images: Its best crop of each band, below the crop store, by the band's name.
        other_tracklet_id: What it was compared with: the nearest in time of that vehicle's.
        other_vehicle_id: The other's vehicle by now.
        other_camera: Where the other was seen.
        other_started_at: The other's first frame.
        other_crop_images: As `crop_images`.
    """

    kind: Literal["link", "near miss"]
    tracklet_id: str
    vehicle_id: str
    camera: str
    started_at: datetime
    ended_at: datetime
    probability: float
    margin: float | None
    modality_pair: str | None
    reason: str
    crop_images: dict[str, str]
    other_tracklet_id: str
    other_vehicle_id: str
    other_camera: str
    other_started_at: datetime
    other_crop_images: dict[str, str]


class _Doubt(NamedTuple):
    """A decision with what it was compared with, where that is told."""

    kind: Literal["link", "near miss"]
    row: Any
    probability: float
    other_id: str | None
    modality_pair: str | None

    @property
    def certainty(self) -> float:
        return self.probability if self.kind == "link" else 1 - self.probability


class _Other(NamedTuple):
    """A tracklet that another was compared with."""

    tracklet_id: str
    vehicle_id: str
    camera: str
    started_at: datetime


def doubtful(session: Session, *, limit: int = 50, visible: Collection[str] | None = None) -> list[DoubtfulLink]:
    """What the matcher was least sure of, that first; five SQL statements at most.

    Near misses are looked for among the `NEAR_MISSES_AMONG` latest decisions.

    Args:
        session: To read from.
        limit: At most so many.
        visible: Only where both tracklets are of these cameras; None: of any.
    """
    doubts = [*_links(session, limit * _SPARE, visible), *_near_misses(session, limit * _SPARE, visible)]
    doubts.sort(key=lambda doubt: (doubt.certainty, doubt.row.tracklet_id))
    others = _named(session, doubts, visible)
    missing = [doubt for doubt in doubts if doubt.kind == "link" and not _is_linked(doubt, others)]
    members = _members(session, missing[:limit], visible)
    found = []
    for doubt in doubts:
        other = _other(doubt, others, members)
        if other is not None:
            found.append((doubt, other))
    found = found[:limit]
    names = {name for doubt, other in found for name in (doubt.row.tracklet_id, other.tracklet_id)}
    crops = _crop_images(session, names)
    return [_answer(doubt, other, crops) for doubt, other in found]


def _decisions(visible: Collection[str] | None) -> Select[*tuple[Any, ...]]:
    """The matcher's current decisions that are final, with their tracklets."""
    chosen = (
        select(
            AssignmentRow.tracklet_id,
            AssignmentRow.vehicle_id,
            AssignmentRow.reason,
            AssignmentRow.score,
            AssignmentRow.margin,
            AssignmentRow.modality_pair,
            AssignmentRow.evidence,
            TrackletRow.camera,
            TrackletRow.started_at,
            TrackletRow.ended_at,
        )
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(*_open_decisions())
    )
    return chosen if visible is None else chosen.where(_camera().in_(visible))


def _camera() -> ColumnElement[str]:
    # No bare column, or SQLite would begin with all tracklets of these cameras.
    return func.coalesce(TrackletRow.camera, "")


def _open_decisions() -> list[ColumnElement[bool]]:
    # With the name spelled out, or the databases don't see that ix_assignments_doubtful has all there is to find.
    matcher: ColumnElement[str] = literal_column(f"'{MATCHER}'")
    return [AssignmentRow.is_current.expression, AssignmentRow.decided_by == matcher, ~AssignmentRow.is_provisional]


def _lowest(limit: int) -> Select[*tuple[Any, ...]]:
    """The numbers of the decisions whose links have the lowest scores."""
    chosen = select(AssignmentRow.assignment_id, AssignmentRow.score)
    own = chosen.where(*_open_decisions(), AssignmentRow.score.is_not(None))
    return own.order_by(AssignmentRow.score).limit(limit)


def _links(session: Session, limit: int, visible: Collection[str] | None) -> list[_Doubt]:
    # Who may see a few cameras is told of the most doubtful ones of the site, as far as they are at these.
    lowest = _lowest(limit if visible is None else _MOST_LINKS)
    found = lowest.subquery()
    links = _decisions(visible).join(found, found.c.assignment_id == AssignmentRow.assignment_id)
    doubts = []
    for row in session.execute(links.order_by(found.c.score).limit(limit)):
        sure = probability(halved(row.score, row.evidence)) or 0.0
        chosen = [one for one in _candidates(row.evidence) if one.get("vehicle_id") == row.vehicle_id]
        doubts.append(_Doubt("link", row, sure, _text(chosen[0], "tracklet_id") if chosen else None, row.modality_pair))
    return doubts


def _near_misses(session: Session, limit: int, visible: Collection[str] | None) -> list[_Doubt]:
    newest = select(func.coalesce(func.max(AssignmentRow.assignment_id), 0) - NEAR_MISSES_AMONG).scalar_subquery()
    latest = _decisions(visible).where(AssignmentRow.assignment_id > newest, AssignmentRow.score.is_(None))
    doubts = []
    for row in session.execute(latest):
        best = max(_candidates(row.evidence), key=_sureness, default={})
        other_id = _text(best, "tracklet_id")
        if other_id is not None and _sureness(best) >= LEAST_PROBABILITY:
            doubts.append(_Doubt("near miss", row, _sureness(best), other_id, _text(best, "modalities")))
    return sorted(doubts, key=lambda doubt: (doubt.certainty, doubt.row.tracklet_id))[:limit]


def _candidates(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that were weighed; none of decisions from before they were kept one by one."""
    listed = evidence.get("candidates")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _sureness(candidate: dict[str, Any]) -> float:
    found = candidate.get("probability")
    return float(found) if isinstance(found, int | float) else 0.0


def _text(candidate: dict[str, Any], name: str) -> str | None:
    found = candidate.get(name)
    return found if isinstance(found, str) else None


def _tracklets(visible: Collection[str] | None) -> Select[*tuple[Any, ...]]:
    """Tracklets with the vehicle that each has now."""
    chosen = select(TrackletRow.tracklet_id, AssignmentRow.vehicle_id, TrackletRow.camera, TrackletRow.started_at).join(
        AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current
    )
    return chosen if visible is None else chosen.where(_camera().in_(visible))


def _named(session: Session, doubts: Sequence[_Doubt], visible: Collection[str] | None) -> dict[str, _Other]:
    """The tracklets that the decisions name, as far as they are still there."""
    names = sorted({doubt.other_id for doubt in doubts if doubt.other_id is not None})
    rows = session.execute(_tracklets(visible).where(TrackletRow.tracklet_id.in_(names)))
    return {row.tracklet_id: _Other(*row) for row in rows}


def _members(session: Session, doubts: Sequence[_Doubt], visible: Collection[str] | None) -> dict[str, list[_Other]]:
    """Of these decisions' vehicles the tracklets decided on last, the earliest of them first."""
    vehicles = sorted({doubt.row.vehicle_id for doubt in doubts})[:_MOST_VEHICLES]
    if not vehicles:
        return {}
    # One look into the index for each: a vehicle may have thousands.
    last = union_all(*(select(_last_of(vehicle).subquery()) for vehicle in vehicles)).subquery()
    rows = session.execute(
        _tracklets(visible)
        .join(last, last.c.assignment_id == AssignmentRow.assignment_id)
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
    )
    found: dict[str, list[_Other]] = {}
    for row in rows:
        found.setdefault(row.vehicle_id, []).append(_Other(*row))
    return found


def _last_of(vehicle_id: str) -> Select[*tuple[Any, ...]]:
    own = select(AssignmentRow.assignment_id).where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current)
    return own.order_by(AssignmentRow.assignment_id.desc()).limit(_MOST_MEMBERS)


def _is_linked(doubt: _Doubt, others: dict[str, _Other]) -> bool:
    other = others.get(doubt.other_id or "")
    return other is not None and other.vehicle_id == doubt.row.vehicle_id


def _other(doubt: _Doubt, others: dict[str, _Other], members: dict[str, list[_Other]]) -> _Other | None:
    """What to hold it against; None where there is nothing to decide any more."""
    if doubt.kind == "near miss":
        other = others.get(doubt.other_id or "")
        return None if other is None or other.vehicle_id == doubt.row.vehicle_id else other
    if _is_linked(doubt, others):
        return others[doubt.other_id or ""]
    # What it was linked by has left the vehicle, or isn't told: then the one before it, or else the first.
    rest = [one for one in members.get(doubt.row.vehicle_id, ()) if one.tracklet_id != doubt.row.tracklet_id]
    before = [one for one in rest if one.started_at <= doubt.row.started_at]
    return before[-1] if before else next(iter(rest), None)


def _crop_images(session: Session, tracklet_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    rows = session.execute(
        select(EmbeddingRow.tracklet_id, EmbeddingRow.modality, EmbeddingRow.crop_image)
        .where(EmbeddingRow.tracklet_id.in_(sorted(tracklet_ids)), EmbeddingRow.crop_image.is_not(None))
        .order_by(EmbeddingRow.quality.desc(), EmbeddingRow.captured_at, EmbeddingRow.embedding_id)
    )
    best: dict[str, dict[str, str]] = {}
    for tracklet_id, modality, image in rows:
        best.setdefault(tracklet_id, {}).setdefault(modality, image or "")
    return best


def _answer(doubt: _Doubt, other: _Other, crops: dict[str, dict[str, str]]) -> DoubtfulLink:
    row = doubt.row
    return DoubtfulLink(
        kind=doubt.kind,
        tracklet_id=row.tracklet_id,
        vehicle_id=row.vehicle_id,
        camera=row.camera,
        started_at=row.started_at,
        ended_at=row.ended_at,
        probability=doubt.probability,
        margin=row.margin,
        modality_pair=doubt.modality_pair,
        reason=row.reason,
        crop_images=crops.get(row.tracklet_id, {}),
        other_tracklet_id=other.tracklet_id,
        other_vehicle_id=other.vehicle_id,
        other_camera=other.camera,
        other_started_at=other.started_at,
        other_crop_images=crops.get(other.tracklet_id, {}),
    )
