"""Films of stops: cut where the vehicle was, with its box; by signed addresses alone; refused where they must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from storage.database import Database
from storage.errors import TrackletNotFoundError
from storage.records import PathSegment, TrackletRecord
from storage.writer import Writer
from streamer.config import SiteConfig
from streamer.recordings import file_session
from tests.web.asking import Asker
from web.app import create_api
from web.clips import AROUND_S, ClipError, Clips, no_clip_reason
from web.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

FILM = Path(__file__).resolve().parent.parent / "data/site/cam1_rgb.mp4"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FPS = 10
#: The vehicle stands still here, which no real one does: where the box is drawn is what is looked at.
BOX = (200.0, 100.0, 300.0, 180.0)
FRAMES = range(50, 71)


def _site(folder: Path, **changed: Any) -> SiteConfig:  # noqa: ANN401 - any section
    camera = {"id": "cam1", "url": str(FILM), "modality": "visible", "start_time": NOON}
    document = {"site": "small", "database": f"sqlite:///{folder / 'x.db'}", "crops_dir": folder, "cameras": [camera]}
    return SiteConfig.model_validate({**document, **changed})


def _id(site: SiteConfig) -> str:
    return f"cam1/{file_session(site.cameras[0])}/1"


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return _site(tmp_path)


@pytest.fixture
def database(site: SiteConfig) -> Iterator[Database]:
    opened = Database.open(site.database)
    _fill(opened, site)
    yield opened
    opened.close()


def _fill(database: Database, site: SiteConfig) -> None:
    """One tracklet, seen from the fifth second to the seventh."""
    times = [NOON + timedelta(seconds=frame / FPS) for frame in FRAMES]
    session_id = file_session(site.cameras[0])
    tracklet = TrackletRecord(
        tracklet_id=_id(site),
        region="main",
        camera="cam1",
        session=session_id,
        number=1,
        vehicle_class="car",
        class_votes={"car": 1.0},
        started_at=times[0],
        ended_at=times[-1],
    )
    path = PathSegment(
        sighting_id=f"{tracklet.tracklet_id}/0",
        tracklet_id=tracklet.tracklet_id,
        sequence=0,
        frames=np.array(FRAMES, np.int64),
        times=np.array([time.timestamp() for time in times]),
        boxes=np.tile(np.array(BOX, np.float32), (len(times), 1)),
    )
    with database.transaction() as session:
        Writer(session).store_sighting(tracklet, path, [])


@pytest.fixture
def clips(site: SiteConfig, database: Database) -> Iterator[Clips]:
    made = Clips(site, database)
    yield made
    made.close()


def _decoded(film: Path) -> list[tuple[float, np.ndarray[Any, Any]]]:
    with av.open(str(film)) as container:
        return [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def _has_box(image: np.ndarray[Any, Any]) -> bool:
    """Whether its left edge is drawn: orange all along, where the road is grey."""
    x, top, bottom = int(BOX[0]), int(BOX[1]) + 8, int(BOX[3]) - 8
    red, _, blue = image[top:bottom, x - 1 : x + 2].astype(float).mean(axis=(0, 1))
    return bool(red - blue > 60)


def test_a_film_shows_the_stop_and_a_second_around_it_with_the_box_while_it_was_seen(
    clips: Clips, site: SiteConfig
) -> None:
    frames = _decoded(clips.film(_id(site)))
    assert frames[-1][0] - frames[0][0] == pytest.approx(2.0 + 2 * AROUND_S, abs=1.5 / FPS)
    boxed = [at for at, image in frames if _has_box(image)]
    assert boxed[0] == pytest.approx(AROUND_S, abs=1.5 / FPS)
    assert boxed[-1] == pytest.approx(AROUND_S + 2.0, abs=1.5 / FPS)
    assert len(boxed) == len(FRAMES)


def test_its_pictures_are_those_of_that_time(clips: Clips, site: SiteConfig) -> None:
    with av.open(str(FILM)) as container:
        source = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][60]
    frames = _decoded(clips.film(_id(site)))
    # Encoded again, it is another picture by a little; the next one, a tenth of a second later, by more.
    differences = [float(np.abs(image.astype(int) - source.astype(int)).mean()) for _, image in frames]
    assert int(np.argmin(differences)) == round((AROUND_S + 1.0) * FPS)


def test_a_film_is_cut_once_and_gone_at_the_end(clips: Clips, site: SiteConfig) -> None:
    film = clips.film(_id(site))
    before = film.stat().st_ino
    assert clips.film(_id(site)).stat().st_ino == before
    clips.close()
    assert not film.exists()


def test_a_long_stay_is_shown_in_part(tmp_path: Path, database: Database) -> None:
    site = _site(tmp_path, web={"max_clip_s": 1.0})
    clips = Clips(site, database)
    frames = _decoded(clips.film(_id(site)))
    clips.close()
    assert frames[-1][0] - frames[0][0] <= 1.0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"privacy": {"blur": True}}, "hides windows"),
        ({"cameras": [{"id": "cam1", "url": "rtsp://127.0.0.1:1/a"}]}, "no file"),
        ({"cameras": [{"id": "cam2", "url": str(FILM)}]}, "no file"),
        ({"cameras": [{"id": "cam1", "url": "pictures/%06d.tiff", "fps": 10}]}, "sequence"),
        ({"cameras": [{"id": "cam1", "url": str(FILM), "start_time": NOON + timedelta(hours=1)}]}, "no longer the one"),
        ({"cameras": [{"id": "cam1", "url": "/nowhere/film.mp4"}]}, "no longer the one"),
    ],
)
def test_what_must_not_or_can_not_be_played_is_refused_with_the_reason(
    tmp_path: Path, site: SiteConfig, database: Database, changed: dict[str, Any], reason: str
) -> None:
    clips = Clips(_site(tmp_path, **changed), database)
    with pytest.raises(ClipError, match=reason):
        clips.film(_id(site))
    clips.close()


def test_a_file_that_is_none_is_told_in_one_line_without_its_place(tmp_path: Path) -> None:
    broken = tmp_path / "film.mp4"
    broken.write_bytes(b"not a film")
    site = _site(tmp_path, cameras=[{"id": "cam1", "url": str(broken), "start_time": NOON}])
    assert no_clip_reason(site, "cam1", file_session(site.cameras[0])) is None
    database = Database.open(site.database)
    _fill(database, site)
    clips = Clips(site, database)
    with pytest.raises(ClipError) as caught:
        clips.film(_id(site))
    assert str(caught.value) == "no film: the camera's file can't be read"
    clips.close()
    database.close()


def test_films_are_had_by_signed_addresses_alone_in_parts_too(site: SiteConfig, database: Database) -> None:
    services = Services(site, database)
    ask = Asker(create_api(services), services)
    address = services.links.clip(_id(site))
    whole = ask("GET", address)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    part = ask("GET", address, headers={"Range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, whole.content[:100])
    assert ask("GET", address.split("?")[0]).status_code == 403
    assert ask("GET", services.links.clip("cam1/nothing/1")).status_code == 404
    services.clips.close()
    with pytest.raises(TrackletNotFoundError):
        services.clips.film("cam1/nothing/1")
