"""`python -m storage`, as a user meets it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from storage.__main__ import app
from storage.crop_store import CropStore
from storage.database import Database
from storage.records import CameraRecord
from storage.writer import Writer
from tests.storage.storage_builders import START, assignment, embedding, path, store, tracklet

pytest_plugins = ("tests.storage.storage_fixtures",)

COMMANDS = [["vehicles"], ["trajectory", "v1"], ["export", "--boxes", "boxes.csv"]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def site(url: str, folder: Path) -> str:
    """A database with two vehicles; `v1` passed both cameras. Its crops lie in `crops`."""
    database = Database.open(url)
    with database.transaction() as session:
        Writer(session).register_cameras([CameraRecord("gate", "main", "visible", started_at=START)])
        store(session, tracklet("gate", 1, start=0, end=4), "v1", frames=[0, 1])
        store(session, tracklet("bridge", 1, start=10, end=14), "v1", frames=[100])
        store(session, tracklet("gate", 2, start=20, end=24, vehicle_class="bus"), "v2", frames=[200])
    database.close()
    for camera in ("gate", "bridge"):
        CropStore(folder / "crops").save(f"{camera}/s1/1.jpg", camera.encode())
    return url


def _run(*arguments: str) -> Result:
    # A wide terminal, or messages of the command line's parser come in pieces.
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def _fails_in_one_line(*arguments: str) -> str:
    result = _run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


# Answers.


def test_vehicles_as_json(site: str) -> None:
    result = _run("vehicles", "--database", site, "--min-cameras", "2", "--format", "json")
    assert json.loads(result.stdout) == [
        {
            "vehicle": "v1",
            "class": "car",
            "first_seen": "2026-01-01T12:00:00.000000Z",
            "last_seen": "2026-01-01T12:00:14.000000Z",
            "cameras": ["gate", "bridge"],
            "tracklets": 2,
            "modalities": ["visible"],
        }
    ]


def test_vehicles_as_csv(site: str) -> None:
    result = _run("vehicles", "--database", site, "--camera", "gate", "--format", "csv")
    header, *rows = csv.reader(result.stdout.splitlines())
    assert header == ["vehicle", "class", "first_seen", "last_seen", "cameras", "tracklets", "modalities"]
    assert [row[0] for row in rows] == ["v1", "v2"]
    assert rows[0][4] == "gate bridge"


@pytest.mark.parametrize(
    ("window", "found"),
    [
        (["--from", "2026-01-01T12:00:15"], ["v2"]),
        (["--from", "2026-01-01T13:00:15+01:00"], ["v2"]),
        (["--to", "2026-01-01T12:00:20Z"], ["v1"]),
        (["--limit", "1"], ["v1"]),
    ],
)
def test_vehicles_in_a_window(site: str, window: list[str], found: list[str]) -> None:
    result = _run("vehicles", "--database", site, "--format", "json", *window)
    assert [row["vehicle"] for row in json.loads(result.stdout)] == found


def test_tables_show_every_stop(site: str) -> None:
    listed = _run("vehicles", "--database", site)
    assert "gate > bridge" in listed.stdout
    followed = _run("trajectory", "v1", "--database", site)
    assert followed.exit_code == 0
    assert followed.stdout.index("gate/s1/1") < followed.stdout.index("bridge/s1/1")


def test_a_trajectory_as_json(site: str) -> None:
    gate, bridge = json.loads(_run("trajectory", "v1", "--database", site, "--format", "json").stdout)
    assert (gate["camera"], gate["frames"], gate["crop_image"]) == ("gate", 2, "gate/s1/1.jpg")
    assert (bridge["stop"], bridge["arrival"], bridge["provisional"]) == (2, "2026-01-01T12:00:10.000000Z", False)


def test_a_name_with_markup_in_it_is_shown_as_it_is(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with database.transaction() as session:
        store(session, tracklet("[red]gate[/red]"), "v1")
    database.close()
    assert "[red]gate[/red]" in _run("vehicles", "--database", sqlite_url).stdout


# Exports.


def test_boxes_are_exported_in_the_agreed_form(site: str, folder: Path) -> None:
    result = _run("export", "--database", site, "--boxes", "boxes.csv", "--format", "json")
    assert json.loads(result.stdout) == [{"what": "boxes", "path": "boxes.csv", "rows": 4, "missing": 0}]
    assert (folder / "boxes.csv").read_text() == (
        "camera,t,captured_at,frame,vehicle,x1,y1,x2,y2\n"
        "bridge,0.0,2026-01-01T12:00:10.000000Z,100,v1,100.0,100.0,120.5,110.25\n"
        "gate,0.0,2026-01-01T12:00:00.000000Z,0,v1,0.0,0.0,20.5,10.25\n"
        "gate,0.1,2026-01-01T12:00:00.100000Z,1,v1,1.0,1.0,21.5,11.25\n"
        "gate,20.0,2026-01-01T12:00:20.000000Z,200,v2,200.0,200.0,220.5,210.25\n"
    )
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".part") == []


@pytest.mark.parametrize(("as_of", "vehicle"), [("decision", "v2"), ("final", "v9")])
def test_boxes_as_of_a_moment(site: str, folder: Path, as_of: str, vehicle: str) -> None:
    database = Database.open(site)
    with database.transaction() as session:
        Writer(session).assign(assignment("gate/s1/2", "v9", reason="second look"))
    database.close()
    assert _run("export", "--database", site, "--boxes", "boxes.csv", "--as-of", as_of).exit_code == 0
    with (folder / "boxes.csv").open(newline="") as stream:
        assert [row["vehicle"] for row in csv.DictReader(stream) if row["frame"] == "200"] == [vehicle]


def test_crops_are_exported_as_a_training_folder(site: str, folder: Path) -> None:
    arguments = ("export", "--database", site, "--crops", "out", "--crops-dir", "crops", "--format", "json")
    result = _run(*arguments)
    assert json.loads(result.stdout) == [{"what": "crops", "path": "out", "rows": 2, "missing": 1}]
    assert (folder / "out" / "samples.csv").read_text() == (
        "path,vehicle,camera,modality,class,time\n"
        "images/v1/visible/0000.jpg,v1,gate,visible,car,2026-01-01T12:00:00.000000Z\n"
        "images/v1/visible/0001.jpg,v1,bridge,visible,car,2026-01-01T12:00:10.000000Z\n"
    )
    assert (folder / "out/images/v1/visible/0001.jpg").read_bytes() == b"bridge"
    assert "wanted a new or an empty folder" in _fails_in_one_line(*arguments)


def test_crops_lie_beside_a_sqlite_file(sqlite_url: str, folder: Path) -> None:
    database = Database.open(sqlite_url)
    with database.transaction() as session:
        of = tracklet()
        Writer(session).store_sighting(of, path(of), [embedding(of, crop_image="1.jpg")])
        Writer(session).assign(assignment(of.tracklet_id, "v1"))
    database.close()
    CropStore(folder / "crops").save("1.jpg", b"x")
    assert _run("export", "--database", sqlite_url, "--crops", "out").exit_code == 0
    assert (folder / "out/images/v1/visible/0000.jpg").read_bytes() == b"x"


@pytest.mark.integration
def test_crops_of_a_server_must_be_pointed_to(postgresql_url: str, folder: Path) -> None:
    Database.open(postgresql_url).close()
    assert "--crops-dir is wanted" in _fails_in_one_line("export", "--database", postgresql_url, "--crops", "out")
    assert list(folder.iterdir()) == []


# Refusals.


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_file_is_not_made(folder: Path, command: list[str]) -> None:
    message = _fails_in_one_line(*command, "--database", "sqlite:///missing.db")
    assert message == "database sqlite:///missing.db: no such file"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreachable_server(folder: Path, command: list[str]) -> None:
    message = _fails_in_one_line(*command, "--database", "postgresql://u:secret@127.0.0.1:1/d")
    assert message.startswith("database postgresql://u:***@127.0.0.1:1/d: ")
    assert "secret" not in message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_schema(site: str, command: list[str]) -> None:
    database = Database.open(site)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    assert "newer than this program's" in _fails_in_one_line(*command, "--database", site)


def test_an_unknown_vehicle(site: str) -> None:
    assert _fails_in_one_line("trajectory", "v7", "--database", site) == "vehicle v7: not known"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "export: say what to write"),
        (["export", "--crops", "out", "--crops-dir", "nowhere"], "--crops-dir: nowhere is no folder"),
        (["export", "--boxes", "crops/gate"], "crops/gate: Is a directory"),
        (["export", "--boxes", "crops/gate/s1/1.jpg/boxes.csv"], "export crops/gate/s1/1.jpg/boxes.csv: "),
        (["export", "--crops", "crops/gate/s1/1.jpg", "--crops-dir", "crops"], "1.jpg: Not a directory"),
        (["vehicles", "--from", "yesterday"], "--from: wanted a time such as 2026-01-01T12:30, got 'yesterday'"),
        (["vehicles", "--to", ""], "--to: wanted a time"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(site: str, arguments: list[str], message: str) -> None:
    assert message in _fails_in_one_line(*arguments, "--database", site)


def test_help_teaches() -> None:
    assert "python -m storage vehicles --database" in _run("--help").stdout
    for command in ("vehicles", "trajectory", "export"):
        assert "Example:" in _run(command, "--help").stdout


# Weight.


def test_the_command_runs_by_itself_and_loads_nothing_heavy(sqlite_url: str) -> None:
    Database.open(sqlite_url).close()
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['storage', 'vehicles', '--database', {sqlite_url!r}, '--format', 'csv']\n"
        "try:\n    runpy.run_module('storage', run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'alembic', 'cv2', 'pandas', 'streamer', 'reid', 'detector'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "vehicle,class,first_seen,last_seen,cameras,tracklets,modalities\n")
