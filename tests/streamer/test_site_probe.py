"""What `probe --config` says of a site."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from storage.database import Database
from streamer.config import CameraConfig, SiteConfig
from streamer.disk_outlook import disk_outlooks
from streamer.site_probe import run_site_probe
from tests.storage.storage_builders import store, tracklet
from tests.streamer.video_files import colours, encode


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    encode(tmp_path / "gate.mp4", colours(6))
    cameras = (CameraConfig(id="gate", url=str(tmp_path / "gate.mp4")),)
    return SiteConfig(
        site="yard", cameras=cameras, database=f"sqlite:///{tmp_path / 'yard.db'}", crops_dir=tmp_path / "crops"
    )


def probed(site: SiteConfig) -> tuple[int, str]:
    out = io.StringIO()
    return run_site_probe(site, seconds=0.5, console=Console(file=out, width=200)), out.getvalue()


def test_all_cameras_and_disks_of_a_site_that_never_ran_are_told(site: SiteConfig, tmp_path: Path) -> None:
    status, said = probed(site)
    assert status == 0
    assert all(word in said for word in ("gate", "outbox", "crops", "database", "not known", "has not run yet"))
    assert not (tmp_path / "yard.db").exists()


def test_a_camera_that_can_not_be_read_is_named(site: SiteConfig, tmp_path: Path) -> None:
    missing = CameraConfig(id="ramp", url=str(tmp_path / "ramp.mp4"))
    status, said = probed(site.model_copy(update={"cameras": (*site.cameras, missing)}))
    assert status == 2
    assert "ramp: " in said
    assert "gate" in said


def test_a_site_that_ran_is_told_how_long_its_disks_last(site: SiteConfig) -> None:
    database = Database.open(site.database)
    with database.transaction() as session:
        store(session, tracklet(number=1, end_reason="left"), "v1")
    database.close()
    _, said = probed(site)
    assert "tracklets a day" in said


def test_folders_on_one_disk_fill_it_together(site: SiteConfig) -> None:
    alone = {outlook.name: outlook for outlook in disk_outlooks(site, {"crops": 1e6})}
    both = {outlook.name: outlook for outlook in disk_outlooks(site, {"crops": 1e6, "database": 3e6})}
    for name in ("crops", "database"):
        assert both[name].days_left == pytest.approx((alone[name].days_left or 0) / 4, rel=0.01)
    assert [outlook.days_left for outlook in disk_outlooks(site, {})] == [None, None, None]
