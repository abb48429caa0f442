"""What people have decided, as a folder that `reid.train` reads, with the pairs that they spoke of.

Only tracklets on which a person's word stands are in it, each under the vehicle that it is of by that word; what was
undone leaves nothing.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from storage.answers import CropRow
from storage.export import utc_text, whole_file, write_crops
from storage.history import corrections
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore
    from storage.history import Change, Correction

PAIRS = "pairs.csv"
PAIR_COLUMNS = ("crop_a", "crop_b", "same", "said_by", "said_at", "correction", "kind")


@dataclass(frozen=True, slots=True)
class SaidPair:
    """Two tracklets of which a person has said whether they are one vehicle.

    Attributes:
        first: A tracklet.
        second: Another; its id sorts after the first's.
        is_same: Whether they are one vehicle.
        said_by: Who said so last.
        said_at: When, by the clock.
        correction_id: By which correction.
        kind: Of that correction.
    """

    first: str
    second: str
    is_same: bool
    said_by: str
    said_at: datetime
    correction_id: int
    kind: str


@dataclass(frozen=True, slots=True)
class LabelExport:
    """What was written.

    Attributes:
        crops: Pictures in the folder.
        missing: Crops whose picture was not in the crop store.
        pairs: Rows of `PAIRS`.
    """

    crops: int
    missing: int
    pairs: int


class _Crop(NamedTuple):
    """A crop with its tracklet."""

    tracklet_id: str
    quality: float
    row: CropRow


def said_pairs(session: Session) -> list[SaidPair]:
    """The pairs that people's corrections are about, as far as they still stand, by tracklets; three SQL statements.

    What a merge or a move puts together is the same as what was there; what a split or a move takes apart is not the
    same as what stays behind. Of tracklets that were confirmed together, those of one vehicle are the same and those of
    two are not. To undo what the matcher had corrected is to say the contrary of it. A pair that a later correction
    speaks of is that one's.

    Args:
        session: To read from.
    """
    vehicles = _pinned(session)
    found: dict[tuple[str, str], SaidPair] = {}
    for made in _standing(corrections(session, people_only=True)):
        for first, second, is_same in _told(made):
            is_pinned = first in vehicles and second in vehicles
            if is_pinned and (vehicles[first] == vehicles[second]) == is_same:
                pair = SaidPair(first, second, is_same, made.made_by, made.made_at, made.correction_id, made.kind)
                found.setdefault((first, second), pair)
    return [found[key] for key in sorted(found)]


def write_labels(session: Session, source: CropStore, folder: Path) -> LabelExport:
    """Writes crops as `storage.export.write_crops` does, and `PAIRS` with `PAIR_COLUMNS` as its header.

    A pair of tracklets has a row for each pair of bands, with the best crop of each. The same database makes the same
    files.

    Args:
        session: To read from.
        source: Where the pictures lie. What isn't there is left out, with its pairs.
        folder: New or empty.

    Raises:
        StorageError: The folder holds something, or can't be written.
    """
    crops = list(_crops(session))
    done = write_crops((crop.row for crop in crops), source, folder)
    best = _best(crop for crop in crops if crop.row.crop_image in done.paths)
    rows = sorted(row for pair in said_pairs(session) for row in _rows(pair, best, done.paths))
    with whole_file(folder / PAIRS) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(PAIR_COLUMNS)
        table.writerows(rows)
    return LabelExport(done.written, done.missing, len(rows))


def _pinned(session: Session) -> dict[str, str]:
    """The tracklets on which a person's word stands, each with its vehicle."""
    rows = session.execute(
        select(AssignmentRow.tracklet_id, AssignmentRow.vehicle_id).where(
            AssignmentRow.is_current, AssignmentRow.decided_by != MATCHER
        )
    )
    return {tracklet_id: vehicle_id for tracklet_id, vehicle_id in rows}  # noqa: C416 - a row is no pair to mypy


def _standing(made: list[Correction]) -> Iterator[Correction]:
    """Those that say something of their own and have not been taken back, latest first."""
    by_number = {one.correction_id: one for one in made}

    def stands(one: Correction) -> bool:
        # One that took it back and was taken back itself has brought it back.
        is_taken_back = False
        while one.undone_by is not None:
            one, is_taken_back = by_number[one.undone_by], not is_taken_back
        return not is_taken_back

    # To undo a person's correction says nothing more than that it does not hold.
    return (one for one in made if stands(one) and one.undoes not in by_number)


def _told(made: Correction) -> Iterator[tuple[str, str, bool]]:
    """The pairs that a correction is about, and whether they are one vehicle by it."""
    is_word = made.kind == "confirm"
    ordered = sorted(made.changes, key=lambda change: change.tracklet_id)
    for first, second in combinations(ordered, 2):
        is_same = first.after == second.after
        if is_word or _was_same(first, second) != is_same:
            yield first.tracklet_id, second.tracklet_id, is_same


def _was_same(first: Change, second: Change) -> bool:
    return first.before == second.before


def _crops(session: Session) -> Iterator[_Crop]:
    """The crops of those tracklets, as `storage.trajectories.crops` gives them."""
    rows = session.execute(
        select(
            AssignmentRow.vehicle_id,
            TrackletRow.tracklet_id,
            TrackletRow.camera,
            EmbeddingRow.modality,
            TrackletRow.vehicle_class,
            EmbeddingRow.captured_at,
            func.min(EmbeddingRow.crop_image).label("crop_image"),
            func.max(EmbeddingRow.quality).label("quality"),
        )
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .join(EmbeddingRow, EmbeddingRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(AssignmentRow.is_current, AssignmentRow.decided_by != MATCHER, EmbeddingRow.crop_image.is_not(None))
        # The end of a tracklet tells its best crops again: of one moment there is one.
        .group_by(
            AssignmentRow.vehicle_id,
            TrackletRow.tracklet_id,
            TrackletRow.camera,
            TrackletRow.vehicle_class,
            EmbeddingRow.modality,
            EmbeddingRow.captured_at,
        )
        .order_by(AssignmentRow.vehicle_id, EmbeddingRow.modality, EmbeddingRow.captured_at, TrackletRow.tracklet_id)
    )
    for row in rows:
        values = (row.vehicle_id, row.camera, row.modality, row.vehicle_class, row.captured_at, row.crop_image)
        yield _Crop(row.tracklet_id, row.quality, CropRow(*values))


def _best(crops: Iterable[_Crop]) -> dict[str, dict[str, str]]:
    """Of each tracklet the best crop of each band, below the crop store."""
    best: dict[str, dict[str, _Crop]] = defaultdict(dict)
    for crop in crops:
        known = best[crop.tracklet_id].setdefault(crop.row.modality, crop)
        if crop.quality > known.quality:
            best[crop.tracklet_id][crop.row.modality] = crop
    return {
        tracklet_id: {modality: crop.row.crop_image for modality, crop in own.items()}
        for tracklet_id, own in best.items()
    }


def _rows(
    pair: SaidPair, best: Mapping[str, Mapping[str, str]], paths: Mapping[str, str]
) -> Iterator[tuple[str | int, ...]]:
    first, second = best.get(pair.first, {}), best.get(pair.second, {})
    said = (int(pair.is_same), pair.said_by, utc_text(pair.said_at), pair.correction_id, pair.kind)
    for one, other in product(first.values(), second.values()):
        yield (*sorted((paths[one], paths[other])), *said)
