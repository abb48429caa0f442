"""docs/queries.md: every block runs on what the demo saw, and the three ways of a question give one answer."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from storage.__main__ import app as storage_app
from storage.database import Database
from storage.trajectories import trajectory, vehicles
from streamer.config import load_site
from tests.web.asking import Asker
from tests.web.browser import demo_site
from web.app import create_api
from web.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs/queries.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^## (\d+)\. .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo saw, as the page's placeholders name it."""

    url: str
    database: Database
    http: Asker
    vehicle: str
    tracklet: str

    def filled(self, text: str) -> str:
        """The text with an id in place of `3f2a` and of `cam4_nir/…/3`, and the database's address."""
        text = text.replace("sqlite:///runs/demo/demo.db", self.url).replace("$URL", self.url)
        return text.replace("cam4_nir/…/3", self.tracklet).replace("3f2a", self.vehicle[:13])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    site = load_site(demo_site(tmp_path_factory.mktemp("demo")))
    database = Database.open(site.database, must_exist=True)
    with database.snapshot() as session:
        far = max(vehicles(session, min_cameras=2), key=lambda vehicle: (vehicle.tracklets, vehicle.vehicle_id))
        linked = next(stop for stop in trajectory(session, far.vehicle_id).stops if stop.probability is not None)
    services = Services(site, database)
    yield Demo(site.database, database, Asker(create_api(services), services), far.vehicle_id, linked.tracklet_id)
    services.close()


def _blocks(number: int) -> dict[str, str]:
    section = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    return dict(_BLOCK.findall(section.group(0)))


def _by_python(demo: Demo, code: str) -> Any:  # noqa: ANN401 - whatever the block answers
    names: dict[str, Any] = {}
    exec(demo.filled(_BLOCK.findall(PAGE)[0][1]), names)
    try:
        exec(demo.filled(code), names)
    finally:
        names["database"].close()
    return names["answer"]


def _by_command(demo: Demo, line: str) -> str:
    program, *words = shlex.split(demo.filled(line))[2:]
    assert program == "storage"
    listed = [] if words[0] == "why" else ["--format", "json"]
    done = CliRunner().invoke(storage_app, [*words, *listed])
    assert done.exit_code == 0, done.output
    return done.stdout


def _by_http(demo: Demo, request: str) -> Any:  # noqa: ANN401 - JSON
    method, path = demo.filled(request).split()
    assert method == "GET"
    answer = demo.http("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _ids(number: int, rows: Any) -> list[Any]:  # noqa: ANN401 - dataclasses or JSON
    """What tells one row of an answer from another, in each way's own words."""
    return [tuple(_value(row, name) for name in KEYS[number]) for row in rows]


def _value(row: Any, names: str) -> Any:  # noqa: ANN401 - a dataclass or JSON
    for name in names.split("|"):
        value = row.get(name) if isinstance(row, dict) else getattr(row, name, None)
        if value is not None:
            return round(value, 3) if isinstance(value, float) else value
    return None


#: Of each question the columns that tell its rows apart: by their names in Python and HTTP, and on the command line.
KEYS = {
    1: ("vehicle_id|vehicle",),
    2: ("tracklet_id|tracklet",),
    3: ("vehicle_id|vehicle", "travel_s"),
    4: ("vehicle_id|vehicle", "meetings"),
    5: ("camera", "visits", "median_s"),
    6: ("first", "then", "journeys", "median_s"),
    7: ("camera", "vehicle_class|class", "vehicles"),
    8: ("vehicle_id|vehicle", "tracklet_id|tracklet"),
    10: ("tracklet_id|tracklet", "other_tracklet_id|other_tracklet"),
}


def test_there_are_ten_questions_in_three_ways_each() -> None:
    assert [int(number) for number in QUESTIONS] == list(range(1, 11))
    assert all(_blocks(number).keys() == {"python", "bash", "http"} for number in range(1, 11))


@pytest.mark.parametrize("number", sorted(KEYS))
def test_the_three_ways_give_one_answer(demo: Demo, number: int) -> None:
    blocks = _blocks(number)
    python = _by_python(demo, blocks["python"])
    rows = python.stops if number == 2 else python
    wanted = _ids(number, rows)
    assert wanted
    by_command = _ids(number, json.loads(_by_command(demo, blocks["bash"])))
    # Without a calibration the same vehicles come in another order, and each by whichever of its looks has its turn.
    if number == 8:
        by_command, in_order = sorted(vehicle for vehicle, _ in by_command), sorted(vehicle for vehicle, _ in wanted)
        assert by_command == in_order
    else:
        assert by_command == wanted
    body = _by_http(demo, blocks["http"])
    assert _ids(number, body["stops"] if number == 2 else body["items"]) == wanted


def test_the_three_ways_give_one_reason(demo: Demo) -> None:
    blocks = _blocks(9)
    words = _by_python(demo, blocks["python"])
    assert _by_command(demo, blocks["bash"]).splitlines() == words
    told = [line for line in words if not line.lstrip().startswith("crops: ")]
    assert len(told) < len(words)
    assert _by_http(demo, blocks["http"])["words"] == told
