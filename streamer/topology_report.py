"""`python -m streamer topology`: what the matcher has learned of a region's cameras, as a table or a picture."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from storage.database import Database
from storage.errors import StorageError
from storage.matcher_state import load_learned, load_regions
from storage.status import load_cameras
from streamer.matcher.roads import RoadGraph
from streamer.matcher.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.database import Session
    from storage.records import CameraRecord

#: Where what was asked can't be done.
EXIT_FAILED = 2
#: The kinds of picture that are drawn, by what the file's name ends in.
KINDS = (".png", ".svg", ".html")
#: Where the output is no terminal, tables are this wide.
_WIDE = 120
#: The ends and the middle of the travel times that are told.
_SHARES = (0.05, 0.5, 0.95)


class TopologyError(Exception):
    """There is nothing to show; the text is one line."""


@dataclass(frozen=True, slots=True)
class SeenCamera:
    """A camera as the matcher knows it.

    Attributes:
        camera: Its id.
        modality: The band it sees, `auto`, or nothing where the site has not named it.
        place: Where it stands, to the right and up, in any unit; None where that is not known.
        per_minute: Vehicles that it has seen a minute, of late.
        stay_s: Mean seconds that one is in view.
    """

    camera: str
    modality: str
    place: tuple[float, float] | None
    per_minute: float
    stay_s: float


@dataclass(frozen=True, slots=True)
class Way:
    """How vehicles go from one camera to another.

    Attributes:
        left: The camera that they leave.
        entered: The camera that they enter.
        passages: How many were learned from; of those seen, the matcher keeps the surest 64.
        sure: How many of these are vehicles, added up by how sure each is.
        shortest_s: Seconds from leaving the one view to entering the other; 5 % take less. Negative while both show it.
        median_s: Half of them take less.
        longest_s: 5 % take more.
    """

    left: str
    entered: str
    passages: int
    sure: float
    shortest_s: float
    median_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two views that show one piece of road.

    Attributes:
        first: The one camera.
        second: The other, later by name.
        pairs: Tracklets of both that agree on where a place in the one view lies in the other.
        spread: By how much they typically differ, in heights of the vehicle's box.
    """

    first: str
    second: str
    pairs: int
    spread: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What a region's matcher knows of its cameras.

    Attributes:
        region: The region.
        cameras: Those that have seen enough, by name.
        ways: By the names of both ends.
        overlaps: Likewise.
    """

    region: str
    cameras: tuple[SeenCamera, ...]
    ways: tuple[Way, ...]
    overlaps: tuple[Overlap, ...]


def read_learned(session: Session, region: str | None) -> list[Learned]:
    """What was learned in one region, or in each.

    Args:
        session: To read from.
        region: Its name, or None for all that have learned anything.

    Raises:
        TopologyError: There is no such region, nothing was learned yet, or it is of another version of the program.
    """
    regions = load_regions(session)
    if region is not None and region not in regions:
        raise TopologyError(f"region {region}: not known (the database has {', '.join(regions) or 'none'})")
    cameras = {record.camera: record for record in load_cameras(session)}
    asked = regions if region is None else [region]
    states = {name: load_learned(session, name).get("topology") for name in asked}
    known = [_learned(name, state, cameras) for name, state in states.items() if state is not None]
    found = [learned for learned in known if learned.ways or learned.overlaps]
    if not found:
        where = f"region {region}: " if region else ""
        raise TopologyError(f"{where}nothing learned yet: it takes some vehicles in each of two cameras")
    return found


def _learned(region: str, state: bytes, cameras: dict[str, CameraRecord]) -> Learned:
    try:
        topology = Topology.from_json(RoadGraph(None, dwell_s=0.0), json.loads(state)["topology"])
    except (ValueError, KeyError, TypeError) as error:
        raise TopologyError(f"region {region}: what was learned can't be read: another version wrote it") from error
    seen = [
        SeenCamera(camera, _modality(cameras, camera), _place(cameras.get(camera)), 60 * one.rate_hz, one.stay_s)
        for camera, one in sorted(topology.traffic.items())
    ]
    ways = [
        Way(left, entered, len(one), float(one.weights.sum()), *weighted_quantiles(one.gap_s, one.weights, _SHARES))
        for (left, entered), one in sorted(topology.passages.items())
        if len(one)
    ]
    overlaps = [Overlap(*pair, one.pairs, one.spread) for pair, one in sorted(topology.maps.items())]
    return Learned(region, tuple(seen), tuple(ways), tuple(overlaps))


def _modality(cameras: dict[str, CameraRecord], camera: str) -> str:
    return cameras[camera].modality if camera in cameras else ""


def _place(record: CameraRecord | None) -> tuple[float, float] | None:
    if record is None:
        return None
    if record.x is not None and record.y is not None:
        return record.x, -record.y  # the plan's pixels count downwards
    if record.lat is not None and record.lon is not None:
        return record.lon * float(np.cos(np.radians(record.lat))), record.lat
    return None


def weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], shares: Iterable[float]
) -> list[float]:
    """The values (N,) below which those shares of all weight (N,) lie, between two values by a straight line."""
    order = np.argsort(values, kind="stable")
    heavy = weights[order]
    middles = (np.cumsum(heavy) - heavy / 2) / heavy.sum()
    return [float(np.interp(share, middles, values[order])) for share in shares]


def ways_table(learned: Learned) -> Table:
    """Every ordered pair of cameras that anything is known of."""
    table = Table(
        title=f"{escape(learned.region)}: ways between cameras",
        caption="seconds from leaving one view to entering the other; below 0 both showed the vehicle",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("from", "to"):
        table.add_column(name, no_wrap=True)
    for name in ("passages", "sure", "5 %", "median", "95 %", "overlap: pairs", "spread"):
        table.add_column(name, justify="right", no_wrap=True)
    ways = {(way.left, way.entered): way for way in learned.ways}
    overlaps = {pair: one for one in learned.overlaps for pair in ((one.first, one.second), (one.second, one.first))}
    for ends in sorted({*ways, *overlaps}):
        way, overlap = ways.get(ends), overlaps.get(ends)
        numbers = ["-"] * 5 if way is None else [str(way.passages), f"{way.sure:.1f}", *map(_seconds, _times(way))]
        agreed = ["", ""] if overlap is None else [str(overlap.pairs), f"{overlap.spread:.2f} heights"]
        table.add_row(*map(escape, ends), *numbers, *agreed)
    return table


def cameras_table(learned: Learned) -> Table:
    """What each camera has seen of late."""
    table = Table(title=f"{escape(learned.region)}: cameras", title_justify="left")
    for name in ("camera", "modality"):
        table.add_column(name, no_wrap=True)
    for name in ("vehicles a minute", "seconds in view"):
        table.add_column(name, justify="right", no_wrap=True)
    for seen in learned.cameras:
        table.add_row(escape(seen.camera), seen.modality, f"{seen.per_minute:.1f}", f"{seen.stay_s:.1f}")
    return table


def _times(way: Way) -> tuple[float, float, float]:
    return way.shortest_s, way.median_s, way.longest_s


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def run_topology(url: str, region: str | None, out: Path | None) -> int:
    """Shows what was learned, or draws it; the exit status."""
    try:
        if out is not None and out.suffix.lower() not in KINDS:
            raise TopologyError(f"--out {out}: wanted a name that ends in {', '.join(KINDS)}")
        database = Database.open(url, must_exist=True)
        try:
            with database.snapshot() as session:
                found = read_learned(session, region)
        finally:
            database.close()
        if out is None:
            _print_tables(found)
        else:
            _draw(found, out)
    except (StorageError, TopologyError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    return 0


def _print_tables(found: list[Learned]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    for learned in found:
        console.print(cameras_table(learned))
        console.print(ways_table(learned))


def _draw(found: list[Learned], out: Path) -> None:
    from streamer.topology_picture import draw, page

    if len(found) > 1:
        raise TopologyError(f"--out: one region a picture, wanted --region {'|'.join(one.region for one in found)}")
    kind = out.suffix.lower().removeprefix(".")
    data = page(found[0]) if kind == "html" else draw(found[0], kind)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise TopologyError(f"--out {out}: {error.strerror or error}") from error
