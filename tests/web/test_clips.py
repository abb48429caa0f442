"""Films of stops: cut where the vehicle was, with its box; by signed addresses alone; refused where they must be."""

from __future__ import annotations

import asyncio
import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from threading import Event, Semaphore
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np
import pytest
from sqlalchemy import delete

from storage.database import Database
from storage.errors import TrackletNotFoundError
from storage.models import SightingRow
from storage.paths import PathPoints
from storage.records import PathSegment, TrackletRecord
from storage.writer import Writer
from streamer.config import SiteConfig
from streamer.recordings import file_session
from tests.storage.storage_builders import assignment
from tests.web.asking import Asker
from web import clips as kept_clips
from web import cutting
from web.app import create_api
from web.clips import Clips, no_clip_reason
from web.cutting import AROUND_S, ClipError, cut
from web.media import WAITING
from web.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def _id(site: SiteConfig, number: int = 1) -> str:
    return f"cam1/{file_session(site.cameras[0])}/{number}"


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return _site(tmp_path)


@pytest.fixture
def database(site: SiteConfig) -> Iterator[Database]:
    opened = Database.open(site.database)
    _fill(opened, site)
    yield opened
    opened.close()


def _fill(database: Database, site: SiteConfig, number: int = 1) -> None:
    """One tracklet, seen from the fifth second to the seventh."""
    times = [NOON + timedelta(seconds=frame / FPS) for frame in FRAMES]
    session_id = file_session(site.cameras[0])
    tracklet = TrackletRecord(
        tracklet_id=_id(site, number),
        region="main",
        camera="cam1",
        session=session_id,
        number=number,
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
def clips(site: SiteConfig, database: Database) -> Clips:
    return Clips(site, database)


def _decoded(film: bytes) -> list[tuple[float, np.ndarray[Any, Any]]]:
    with av.open(io.BytesIO(film)) as container:
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


def test_a_film_is_cut_once_until_others_take_its_room(
    clips: Clips, site: SiteConfig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = clips.film(_id(site))
    assert clips.film(_id(site)) is film
    _fill(database, site, number=2)
    monkeypatch.setattr(kept_clips, "KEPT_BYTES", len(film) + 1)
    newest = clips.film(_id(site, 2))
    assert clips.film(_id(site, 2)) is newest
    assert clips.film(_id(site)) is not film


def test_a_film_that_was_forgotten_meanwhile_is_not_given(clips: Clips, site: SiteConfig, database: Database) -> None:
    clips.film(_id(site))
    with database.transaction() as session:
        session.execute(delete(SightingRow))
    with pytest.raises(ClipError, match="no longer stored"):
        clips.film(_id(site))


def test_a_long_stay_is_shown_in_part(tmp_path: Path, database: Database) -> None:
    site = _site(tmp_path, web={"max_clip_s": 1.0})
    frames = _decoded(Clips(site, database).film(_id(site)))
    assert frames[-1][0] - frames[0][0] <= 1.0


def _uneven(file: Path, codec: str = "libx264", pixels: str = "yuv420p") -> list[float]:
    """A film of 60 grey pictures, each of its own brightness, that come in at no pace; when each is shown."""
    times = np.cumsum([0.0] + [0.04 if number % 7 else 0.9 for number in range(1, 60)])
    with av.open(str(file), "w") as target:
        stream = target.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, at_s in enumerate(times):
            if pixels == "gray16le":
                counts = np.full((240, 320), 29_000 + 4 * number, np.uint16)
                counts[:20] = 28_900
                frame = av.VideoFrame.from_ndarray(counts, format="gray16le")
            else:
                frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(at_s * 1000), Fraction(1, 1000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return [float(at_s) for at_s in times]


def _path(times: list[float], numbers: range) -> PathPoints:
    chosen = [times[number] for number in numbers]
    boxes = np.tile(np.array(BOX, np.float32), (len(chosen), 1))
    return PathPoints(np.array(numbers, np.int64), NOON.timestamp() + np.array(chosen), boxes)


@pytest.mark.parametrize("is_start_known", [True, False])
def test_a_film_without_a_pace_is_cut_where_its_pictures_were(tmp_path: Path, *, is_start_known: bool) -> None:
    times = _uneven(tmp_path / "film.mp4")
    path = _path(times, range(40, 43))
    start = NOON if is_start_known else None
    frames = _decoded(cut(tmp_path / "film.mp4", path, start=start, longest_s=60.0))
    boxed = [image[5, 5].astype(float).mean() / 4 for _, image in frames if _has_box(image)]
    assert boxed == pytest.approx([40, 41, 42], abs=0.6)


def test_heat_of_16_bits_is_shown_between_its_coldest_and_hottest(tmp_path: Path) -> None:
    times = _uneven(tmp_path / "film.mkv", "ffv1", "gray16le")
    path = _path(times, range(40, 43))
    _, image = _decoded(cut(tmp_path / "film.mkv", path, start=NOON, longest_s=60.0))[0]
    assert image[5].mean() < 20
    assert image[230].mean() > 230


def test_a_damaged_picture_costs_the_film_no_other(tmp_path: Path) -> None:
    times = _uneven(tmp_path / "film.mkv", "ffv1", "yuv420p")
    data = bytearray((tmp_path / "film.mkv").read_bytes())
    with av.open(str(tmp_path / "film.mkv")) as container:
        place = next(packet for number, packet in enumerate(container.demux(video=0)) if number == 41)
        begin = data.index(bytes(place))
    data[begin + 40 : begin + place.size - 40] = bytes(place.size - 80)
    (tmp_path / "film.mkv").write_bytes(data)
    frames = _decoded(cut(tmp_path / "film.mkv", _path(times, range(38, 46)), start=NOON, longest_s=60.0))
    assert sum(_has_box(image) for _, image in frames) in (7, 8)


def test_what_takes_too_long_is_given_up(clips: Clips, site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CUT_TIMEOUT_S", -1.0)
    with pytest.raises(ClipError, match=r"^no film: to cut it takes too long here$"):
        clips.film(_id(site))


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
    with pytest.raises(ClipError, match=reason):
        Clips(_site(tmp_path, **changed), database).film(_id(site))


def _sound(file: Path) -> None:
    with av.open(str(file), "w") as target:
        stream = target.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        target.mux(stream.encode(frame))
        target.mux(stream.encode())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.write_bytes(b"not a film"), "no film: the camera's file can't be read"),
        (_sound, "no film: the camera's file has no pictures"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line_without_its_place(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    broken = tmp_path / "film.mp4"
    make(broken)
    site = _site(tmp_path, cameras=[{"id": "cam1", "url": str(broken), "start_time": NOON}])
    assert no_clip_reason(site, "cam1", file_session(site.cameras[0])) is None
    with closing(Database.open(site.database)) as database:
        _fill(database, site)
        with pytest.raises(ClipError) as caught:
            Clips(site, database).film(_id(site))
    assert str(caught.value) == said


@pytest.fixture
def ask(site: SiteConfig, database: Database) -> Asker:
    services = Services(site, database)
    return Asker(create_api(services), services)


def test_films_are_had_by_signed_addresses_alone(ask: Asker, site: SiteConfig) -> None:
    address = ask.services.links.clip(_id(site))
    whole = ask("GET", address)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.headers["cache-control"].startswith("private")
    assert ask("HEAD", address).headers["content-length"] == str(len(whole.content))
    assert ask("GET", address.split("?")[0]).status_code == 403
    assert ask("GET", ask.services.links.clip("cam1/nothing/1")).status_code == 404
    with pytest.raises(TrackletNotFoundError):
        ask.services.clips.film("cam1/nothing/1")


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-99", 206, slice(100)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-50", 206, slice(-50, None)),
        ("bytes=10-999999999999", 206, slice(10, None)),
        ("bytes=-999999999999", 206, slice(None)),
        ("bytes=99999999999-", 416, slice(0)),
        ("bytes=9-3", 416, slice(0)),
        ("bytes=-0", 416, slice(0)),
        ("bytes=0-9,20-29", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes=" + 5000 * "9" + "-", 200, slice(None)),
        ("seconds=1-2", 200, slice(None)),
    ],
)
def test_players_get_the_parts_of_a_film_that_they_want(
    ask: Asker, site: SiteConfig, monkeypatch: pytest.MonkeyPatch, wanted: str, status: int, part: slice
) -> None:
    film = bytes(range(256)) * 4
    monkeypatch.setattr(ask.services.clips, "film", lambda _tracklet_id: film)
    answer = ask("GET", ask.services.links.clip(_id(site)), headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (status, film[part])
    begin, end, _ = part.indices(len(film))
    said = {200: None, 206: f"bytes {begin}-{end - 1}/1024", 416: "bytes */1024"}
    assert answer.headers.get("content-range") == said[status]


def test_where_others_are_cut_one_is_told_to_ask_again(ask: Asker, site: SiteConfig) -> None:
    address = ask.services.links.clip(_id(site))
    with ask.services.clips._cutting, pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_clips, "BUSY_S", 0.01)
        answer = ask("GET", address)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["detail"] == "other films are being cut: ask again in a moment"
    assert ask("GET", address).status_code == 200


def test_those_who_wait_for_films_keep_nobody_else_waiting(
    ask: Asker, site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, goes_on = Semaphore(0), Event()

    def film(_tracklet_id: str) -> bytes:
        waiting.release()
        assert goes_on.wait(30)
        return b"film"

    monkeypatch.setattr(ask.services.clips, "film", film)
    address = ask.services.links.clip(_id(site))

    async def many() -> tuple[list[int], int]:
        transport = httpx.ASGITransport(ask.app)
        async with httpx.AsyncClient(transport=transport, base_url=ask.base) as client:
            films = [asyncio.ensure_future(client.get(address)) for _ in range(60)]
            for _ in range(WAITING):
                assert await asyncio.to_thread(waiting.acquire, timeout=30)
            other = (await client.get("/v1/site")).status_code
            goes_on.set()
            return [(await one).status_code for one in films], other

    statuses, other = asyncio.run(many())
    assert other == 200
    assert sorted(statuses) == [200] * WAITING + [503] * (60 - WAITING)


def test_the_api_tells_where_a_stops_film_is_found(ask: Asker, site: SiteConfig, database: Database) -> None:
    with database.transaction() as session:
        Writer(session).assign(assignment(_id(site), "v1"))
    (stop,) = ask("GET", "/v1/vehicles/v1/trajectory").json()["stops"]
    assert ask("GET", stop["clip"]).headers["content-type"] == "video/mp4"
    site.privacy.__dict__["blur"] = True
    (stop,) = ask("GET", "/v1/vehicles/v1/trajectory").json()["stops"]
    assert stop["clip"] is None
