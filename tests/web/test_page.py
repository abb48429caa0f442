"""The page in a real browser: all seven views at both widths, a search by picture, a merge and its undo.

`PICTURES=docs/pictures` keeps what the views looked like.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, text, update

from storage.crop_store import CropStore
from storage.database import Database
from storage.history import corrections
from storage.models import EmbeddingRow, VehicleRow
from storage.removal import remove_tracklets
from storage.trajectories import trajectory, vehicles
from streamer.config import load_site
from tests.storage.storage_builders import store, tracklet
from tests.web.browser import Witness, chromium, demo_site, page_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from streamer.config import SiteConfig

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SIZES = {1280: 800, 390: 844}
# A busy machine is patient, and a page that never comes is found all the same.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site_file(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the browser, so that nothing is computed where there is none."""
    assert browser.is_connected()
    return demo_site(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def site(site_file: Path) -> SiteConfig:
    return load_site(site_file)


@pytest.fixture(scope="module")
def address(site_file: Path) -> Iterator[str]:
    with page_server(site_file) as found:
        yield found


@pytest.fixture(params=list(SIZES))
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def page(browser: Browser, width: int) -> Iterator[Page]:
    """A browser that has never been here, and at the end did nothing that it should not do."""
    context = browser.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme="light")
    context.set_default_timeout(20_000)
    opened = context.new_page()
    witness = Witness(opened)
    yield opened
    context.close()
    assert witness.faults == []


def _picture(page: Page, name: str) -> None:
    folder = os.environ.get("PICTURES")
    if folder is not None:
        assert page.viewport_size is not None
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(700)
        page.screenshot(path=Path(folder) / f"{name}-{page.viewport_size['width']}.jpg", quality=80, type="jpeg")


def _far(site: SiteConfig) -> str:
    """The vehicle that was seen most often."""
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        found = max(vehicles(session), key=lambda one: (len(one.cameras), one.vehicle_id))
    database.close()
    return found.vehicle_id


def _goes_in(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
    # Keys and clicks are heard from here on.
    page.wait_for_function("window.did_handshake")
    # Nothing lies beside the page, at whatever width.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_all_views_stand(page: Page, address: str, site: SiteConfig) -> None:
    page.goto(address + "/")
    _goes_in(page, "Live")
    for camera in site.cameras:
        expect(page.get_by_role("link", name=f"Vehicles at {camera.id}")).to_be_visible()
    expect(page.get_by_label("Latest sightings").get_by_role("img").first).to_be_visible()
    _picture(page, "live")

    page.get_by_role("navigation").get_by_role("link", name="Vehicles").click()
    _goes_in(page, "Vehicles")
    vehicle = _far(site)
    row = page.locator(f'a[href*="{vehicle}"]')
    expect(row).to_be_visible()
    _picture(page, "vehicles")

    row.click()
    _goes_in(page, "Vehicle")
    expect(page.get_by_role("group", name="Site plan").locator(".way").first).to_be_visible()
    _picture(page, "vehicle")
    page.get_by_role("button", name="Play the moment").first.click()
    expect(page.locator("video")).to_be_visible()
    page.wait_for_function("document.querySelector('video').readyState >= 2 && !document.querySelector('video').error")

    for name, wanted in (
        ("Search", "Drop a picture"),
        ("Review", "Who did what"),
        ("Watch", "nobody is told"),
        ("Health", "Nothing needs attention"),
    ):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        _goes_in(page, name)
        expect(page.get_by_text(re.compile(wanted, re.IGNORECASE)).first).to_be_visible()
        _picture(page, name.lower())


def test_a_picture_finds_its_vehicle_in_every_band(page: Page, address: str, site: SiteConfig) -> None:
    vehicle = _far(site)
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        stop = next(stop for stop in trajectory(session, vehicle).stops if "visible" in stop.crop_images)
    database.close()
    picture = CropStore(site.crops_dir).path(stop.crop_images["visible"])
    page.goto(f"{address}/search")
    page.locator('input[type="file"]').set_input_files(picture)
    page.get_by_role("button", name="Search", exact=True).click()
    first = page.locator('main a[href*="/vehicles/"]').first
    expect(first).to_have_attribute("href", re.compile(vehicle))
    # Infrared looks are ranked beside visible ones.
    expect(page.get_by_text("thermal", exact=True).first).to_be_visible()
    # Where the form is longer than the screen, too.
    expect(first).to_be_in_viewport()
    _picture(page, "search-found")


def test_a_merge_is_made_and_taken_back(page: Page, address: str, site: SiteConfig) -> None:
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        before = {one.vehicle_id: one.tracklets for one in vehicles(session)}
        tracklet = trajectory(session, _far(site)).stops[0].tracklet_id
        done_before = len(corrections(session))
    page.goto(f"{address}/search?tracklet={tracklet}")
    offers = page.get_by_role("button", name="These are one: merge")
    offers.first.wait_for()
    offered = offers.count()
    offers.first.click()
    page.get_by_role("dialog").get_by_role("button", name="Merge").click()
    undo = page.get_by_role("button", name="Merged: undo")
    expect(undo).to_be_visible()
    with database.snapshot() as session:
        assert len(vehicles(session)) == len(before) - 1
    undo.click()
    expect(undo).to_be_hidden()
    expect(offers).to_have_count(offered)
    with database.snapshot() as session:
        assert {one.vehicle_id: one.tracklets for one in vehicles(session)} == before
        latest = corrections(session)
    assert [one.kind for one in latest[:2]] == ["undo", "merge"]
    assert len(latest) == done_before + 2
    database.close()
    page.goto(f"{address}/review")
    expect(page.get_by_text("merge by").first).to_be_visible()
    _picture(page, "review-done")


@pytest.mark.parametrize("width", [max(SIZES)], indirect=True)
def test_a_doubt_is_decided_once_told_and_taken_back_by_a_key(page: Page, address: str, site: SiteConfig) -> None:
    page.goto(f"{address}/review")
    _goes_in(page, "Review")
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        done_before = len(corrections(session))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog").get_by_text("g r: Review")).to_be_visible()
    page.keyboard.press("c")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    # Keys that decide are letters where somebody writes.
    page.get_by_label("Note, kept with").press_sequentially("scum <script>")
    confirm = page.get_by_role("button", name=re.compile(r"\(c\)"))
    place = confirm.bounding_box()
    assert place is not None
    confirm.click()
    expect(page.get_by_text(re.compile(r"^Confirmed: correction \d+"))).to_be_visible()
    # The second click of a double click, which falls on the button of the next link.
    page.mouse.move(place["x"] + 9, place["y"] + 9)
    page.mouse.down(click_count=2)
    page.mouse.up(click_count=2)
    expect(page.get_by_label("Note, kept with")).to_have_value("")
    # Held down it is one deed, too.
    page.keyboard.down("u")
    page.keyboard.down("u")
    page.keyboard.up("u")
    expect(page.get_by_text("is taken back")).to_be_visible()
    expect(page.get_by_role("region", name="Who did what").get_by_text("“scum <script>”")).to_be_visible()
    with database.snapshot() as session:
        undone, made = corrections(session)[: -done_before or None]
    database.close()
    assert (undone.kind, undone.undoes, made.kind) == ("undo", made.correction_id, "confirm")


@pytest.mark.parametrize("width", [max(SIZES)], indirect=True)
def test_two_vehicles_are_looked_at_and_merged_and_the_old_address_leads_on(
    page: Page, address: str, site: SiteConfig
) -> None:
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        keep, other = (one for one in vehicles(session)[:2])
    database.close()
    page.goto(f"{address}/vehicles/{keep.vehicle_id}")
    _goes_in(page, "Vehicle")
    page.get_by_role("button", name="Merge with another").click()
    dialogue = page.get_by_role("dialog")
    expect(dialogue.get_by_role("button", name="Merge")).to_be_disabled()
    name = dialogue.get_by_label("The other's id")
    name.fill(other.vehicle_id)
    name.press("Enter")
    expect(dialogue.get_by_text(f"{other.vehicle_class} {other.vehicle_id[:8]}")).to_be_visible()
    dialogue.get_by_role("button", name="Merge").click()
    expect(dialogue.get_by_text(re.compile(r"^Correction \d+: merge"))).to_be_visible()
    page.goto(f"{address}/vehicles/{other.vehicle_id}")
    expect(page.get_by_text(f"The stops of vehicle {other.vehicle_id[:8]} have been given to this one")).to_be_visible()
    # It is somebody's word now, and no matter of probability.
    expect(page.get_by_text("'s word.").first).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    page.goto(f"{address}/review")
    page.get_by_role("button", name=re.compile(r"Undo correction \d+")).first.click()
    expect(page.get_by_text("is taken back")).to_be_visible()


#: The first, and like it as many as are wanted, all seen at one moment: they are listed by their ids, backwards.
_MANY = text("""
INSERT INTO vehicles (vehicle_id, vehicle_class, first_seen, last_seen)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count - 1)
SELECT printf('%08d', n), vehicle_class, first_seen, last_seen FROM numbers, vehicles WHERE vehicle_id = '00000000'
""")


@pytest.fixture
def crowd(site: SiteConfig) -> Iterator[int]:
    """So many lorries beside what the demo saw; those at both ends and in the middle have a stop."""
    count, database = 100_000, Database.open(site.database, must_exist=True)
    shown = [number for middle in (15, count // 2, count - 16) for number in range(middle - 15, middle + 16)]
    stays = {number: tracklet("cam1_rgb", number, session="crowd", vehicle_class="lorry") for number in shown}
    names = {stay.tracklet_id for stay in stays.values()}
    with database.transaction() as session:
        store(session, stays.pop(0), "00000000")
        session.execute(_MANY, {"count": count})
        for number, stay in stays.items():
            store(session, stay, f"{number:08}")
        session.execute(update(EmbeddingRow).where(EmbeddingRow.tracklet_id.in_(names)).values(crop_image=None))
    yield count
    with database.transaction() as session:
        remove_tracklets(session, names)
        session.execute(delete(VehicleRow).where(VehicleRow.vehicle_class == "lorry"))
    database.close()


@pytest.mark.parametrize("width", [max(SIZES)], indirect=True)
def test_a_hundred_thousand_vehicles_scroll(page: Page, address: str, crowd: int) -> None:
    page.goto(f"{address}/vehicles?vehicle_class=lorry")
    _goes_in(page, "Vehicles")
    expect(page.get_by_text(f"{crowd:,} vehicles, latest first")).to_be_visible()
    box = page.get_by_role("list")
    for place in (0, crowd // 2, crowd - 1):
        box.evaluate("(it, share) => { it.scrollTop = it.scrollHeight * share }", place / crowd)
        row = box.locator(f'[data-index="{place}"]')
        expect(row).to_contain_text(f"lorry {crowd - 1 - place:08}")
        expect(row).to_be_in_viewport()
        expect(page.locator(".vehicle-blank")).to_have_count(0)
        shown = box.locator(".vehicle-row").evaluate_all("all => all.map(it => [it.dataset.index, it.innerText])")
        assert 5 <= len(shown) <= 20
        assert all(f"lorry {crowd - 1 - int(index):08}" in text for index, text in shown)


def test_what_is_not_there_is_said_in_the_page(page: Page, address: str) -> None:
    page.goto(f"{address}/vehicles/nobody")
    expect(page.get_by_role("alert").get_by_text("not known")).to_be_visible()
    page.goto(f"{address}/vehicles?camera=cam1_rgb&start=2031-01-01T00:00:00")
    expect(page.get_by_text(re.compile("no vehicle", re.IGNORECASE)).first).to_be_visible()


def test_it_goes_by_keyboard_and_in_the_dark(page: Page, address: str, width: int) -> None:
    page.goto(address + "/")
    _goes_in(page, "Live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("h")
    _goes_in(page, "Health")
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body.body--light")).to_be_visible()
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body.body--dark")).to_be_visible()
    page.emulate_media(color_scheme="light")
    page.reload()
    expect(page.locator("body.body--dark")).to_be_visible()
    if width == max(SIZES):
        page.goto(address + "/")
        _goes_in(page, "Live")
        _picture(page, "live-dark")
