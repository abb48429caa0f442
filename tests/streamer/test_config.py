from pathlib import Path
from textwrap import dedent

import pytest

from reid.modality import Modality
from streamer.config import ConfigError, load_site, mask

SMALLEST = """
    site: crossing
    database: sqlite:///crossing.db
    cameras:
      - {id: cam1, url: cam1.mp4, modality: visible, start_time: 2026-01-01T12:00:00Z}
      - {id: cam2, url: cam2.mp4, modality: thermal, start_time: 2026-01-01T12:00:00Z}
    links:
      - {between: [cam1, cam2], min_s: 2, max_s: 30}
"""
ONE_CAMERA = "site: s\ndatabase: sqlite:///s.db\ncameras: [{id: c, url: c.mp4}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def faults(folder: Path, text: str, **environment: str) -> list[str]:
    """The lines of the error, without the file's name, which each must begin with."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_site(path, environment)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def one_camera(**keys: str) -> str:
    entry = {"id": "c", "url": "c.mp4"} | keys
    return f"site: s\ndatabase: sqlite:///s.db\ncameras: [{{{', '.join(f'{k}: {v}' for k, v in entry.items())}}}]"


def test_the_smallest_site_file_runs_with_paths_beside_it(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, SMALLEST), {})
    assert [camera.url for camera in site.cameras] == [str(tmp_path / "cam1.mp4"), str(tmp_path / "cam2.mp4")]
    assert site.database == f"sqlite:///{tmp_path}/crossing.db"
    assert site.crops_dir == tmp_path / "crops"
    assert site.outbox_path == tmp_path / "crossing.outbox.db"
    assert site.camera("cam2").modality is Modality.THERMAL
    assert not site.camera("cam1").is_live
    assert site.region_of(site.cameras[0]) == "main"
    assert site.bus == "memory"
    with pytest.raises(KeyError):
        site.camera("cam3")


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, one_camera(url='"rtsp://me:${CAMERA_PASSWORD}@camera/1"'))
    camera = load_site(path, {"CAMERA_PASSWORD": "p@ss:word"}).cameras[0]
    assert camera.url == "rtsp://me:p@ss:word@camera/1"
    assert camera.is_live
    assert faults(tmp_path, path.read_text()) == ["cameras.0.url: ${CAMERA_PASSWORD} is not set in the environment"]


def test_a_bare_weights_name_stays_unless_such_a_file_lies_beside(tmp_path: Path) -> None:
    text = ONE_CAMERA + "detector: {weights: yolo11n.pt, weights_by_modality: {thermal: ./t.pt}}\n"
    detector = load_site(write(tmp_path, text), {}).detector
    assert detector.weights == "yolo11n.pt"
    assert detector.weights_by_modality[Modality.THERMAL] == str(tmp_path / "t.pt")
    (tmp_path / "yolo11n.pt").touch()
    assert load_site(write(tmp_path, text), {}).detector.weights == str(tmp_path / "yolo11n.pt")


@pytest.mark.parametrize(("text", "expected"), [
    (one_camera(modality="infrared"),
     ["cameras.0.modality: wanted 'visible', 'near_infrared' or 'thermal' or 'auto' (got 'infrared')"]),
    (one_camera(modality="3"),
     ["cameras.0.modality: wanted 'visible', 'near_infrared' or 'thermal' or 'auto' (got 3)"]),
    (one_camera(colour="red"), ["cameras.0.colour: unknown key (got 'red')"]),
    (one_camera(id="a b"), ["cameras.0.id: wanted text that matches ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$ (got 'a b')"]),
    (one_camera(url="[1]"), ["cameras.0.url: wanted text (got a list of 1)"]),
    (one_camera(transport="sctp"), ["cameras.0.transport: wanted 'tcp' or 'udp' (got 'sctp')"]),
    (one_camera(start_time="2026-01-01T12:00:00"),
     ["cameras.0.start_time: wanted a time zone, as in 2026-01-01T12:00:00Z (got 2026-01-01 12:00:00)"]),
    (one_camera(position="{x: 3}"), ["cameras.0.position: give x and y, or lat and lon"]),
    (one_camera(position="{lat: 91, lon: 0}"),
     ["cameras.0.position.lat: wanted less than or equal to 90 (got 91)"]),
    (one_camera(ignore="[[[1, 2], [3, 4]]]"), ["cameras.0.ignore.0: wanted at least 3 (got a list of 2)"]),
    (one_camera(region="north"), ["cameras: c: region 'north' is not among regions ['main']"]),
    ("site: s\ndatabase: d\ncameras: [{id: c}]", ["cameras.0.url: missing, and has no default"]),
    ("site: s\ndatabase: d\ncameras: []", ["cameras: wanted at least 1 (got a list of 0)"]),
    ("site: s\ndatabase: d\ncameras: 3", ["cameras: wanted a list (got 3)"]),
    ("site: s\ndatabase: d\ncameras: [{id: c, url: a}, {id: c, url: b}]",
     ["cameras: each id must be unique, got twice: c"]),
    ("site: s\ncameras: [{id: c, url: a}]", ["database: missing, and has no default"]),
    ("site: s\ndatabase: 'sqlite://'\ncameras: [{id: c, url: a}]",
     ["database: a site runs in several processes, which share no database in memory; wanted a file (got 'sqlite://')"]),
    (ONE_CAMERA + "colour: red", ["colour: unknown key (got 'red')"]),
    (ONE_CAMERA + "workers: 0", ["workers: wanted greater than 0 (got 0)"]),
    (ONE_CAMERA + "bus: rabbit", ["bus: wanted 'memory' or a mapping (got 'rabbit')"]),
    (ONE_CAMERA + "bus: {typo: 1}",
     ["bus.bootstrap_servers: missing, and has no default", "bus.typo: unknown key (got 1)"]),
    (ONE_CAMERA + "detector: {weights_by_modality: {ultraviolet: a}}",
     ["detector.weights_by_modality.ultraviolet: wanted 'visible', 'near_infrared' or 'thermal' (got 'ultraviolet')"]),
    (ONE_CAMERA + "links: [{between: [c, d], max_s: 1}]", ["links: 'd' is not a camera of this site (c)"]),
    (ONE_CAMERA + "links: [{between: [c, c], max_s: 1}]", ["links.0: a link needs two cameras, got c twice"]),
    (ONE_CAMERA + "links: [{between: [c, d], min_s: 2, max_s: 1}]",
     ["links.0: max_s must exceed min_s, got 1 and 2"]),
    ("just a word", ["wanted a mapping with site, database and cameras, got str"]),
    ("[1, 2]", ["wanted a mapping with site, database and cameras, got list"]),
])  # fmt: skip
def test_each_fault_is_one_line_that_names_key_wish_and_value(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert faults(tmp_path, text) == expected


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(faults(tmp_path, one_camera(colour="red") + "\nworkers: 0\nbus: 3")) == 3


def test_a_link_between_regions_is_an_error(tmp_path: Path) -> None:
    text = """
        site: s
        database: d
        regions: [north, south]
        cameras: [{id: a, url: a, region: north}, {id: b, url: b, region: south}]
        links: [{between: [a, b], max_s: 5}]
    """
    (line,) = faults(tmp_path, text)
    assert line.startswith("links: a and b lie in different regions (north, south)")


def test_a_wrong_value_is_shown_without_its_password(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, one_camera(transport='"rtsp://me:secret@camera/1"'))
    assert "secret" not in line
    assert "rtsp://me:***@camera/1" in line


@pytest.mark.parametrize(("content", "reason"), [
    (b"site: [", "not YAML"), (b"site: \xff\xfe", "not YAML"), (None, "No such file or directory"),
])  # fmt: skip
def test_a_file_that_is_no_yaml_or_is_missing(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "site.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_site(path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "masked"), [
    ("rtsp://me:secret@camera/1", "rtsp://me:***@camera/1"),
    ("rtsp://me:se@cr/et@camera/1", "rtsp://me:***@camera/1"),
    ("rtsp://:secret@camera/1 and http://a:b@c", "rtsp://:***@camera/1 and http://a:***@c"),
    ("postgresql+psycopg://me:secret@db/site", "postgresql+psycopg://me:***@db/site"),
    ("http://camera/1?user=me&pwd=secret", "http://camera/1?user=me&pwd=***"),
    ("rtsp://camera:554/1", "rtsp://camera:554/1"),
    ("no address: me@home", "no address: me@home"),
])  # fmt: skip
def test_mask_hides_passwords_alone(text: str, masked: str) -> None:
    assert mask(text) == masked
