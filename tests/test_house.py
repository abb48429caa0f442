"""The house keeps its order: who may import whom, what a command loads, what may lie in the repository."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.config import load_site
from tests import house_rules

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 15_000_000
MAX_BINARY_BYTES = 40_000_000
HEAVY = ("torch", "ultralytics", "openvino", "faiss")


def _tracked() -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git checkout to look at: {error}")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _sources() -> dict[str, str]:
    """Our own modules by path: those that stand in a room."""
    paths = [path for room in house_rules.MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:8192]


# --- The rules themselves can be broken.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reid/model.py", "import detector.yolo"),
        ("storage/writer.py", "def later():\n    from streamer import config"),
        (
            "detector/yolo.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from reid.modality import Modality",
        ),
        ("streamer/supervisor.py", "from web.api import app"),
        ("web/api.py", "from streamer.matcher import worker"),
        ("web/pages/live.py", "import streamer"),
    ],
)
def test_an_import_against_the_direction_is_named(path: str, source: str) -> None:
    (fault,) = house_rules.wrong_directions({path: source})
    assert fault.startswith(f"{path} imports ")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("streamer/camera_worker.py", "from detector import yolo\nimport storage.writer"),
        ("web/api.py", "from streamer.config import load_site\nfrom streamer import config"),
        ("reid/train.py", "from reid import model\nfrom . import losses\nimport detectors_of_others"),
    ],
)
def test_an_import_along_the_direction_is_no_fault(path: str, source: str) -> None:
    assert house_rules.wrong_directions({path: source}) == []


def test_a_cycle_is_found_through_functions_and_relative_imports() -> None:
    sources = {
        "streamer/a.py": "from streamer import b",
        "streamer/b.py": "def later():\n    from .bus import c",
        "streamer/bus/c.py": "from ..a import thing",
    }
    assert set(house_rules.import_cycle(sources)) == {"streamer.a", "streamer.b", "streamer.bus.c"}


def test_a_name_for_the_type_checker_makes_no_cycle() -> None:
    sources = {
        "storage/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from storage.b import B",
        "storage/b.py": "from storage.a import A",
    }
    assert house_rules.import_cycle(sources) == []


def test_a_library_outside_of_its_home_is_named() -> None:
    sources = {
        "streamer/supervisor.py": "from kafka import KafkaProducer",
        "streamer/bus/kafka/clients.py": "import kafka",
        "streamer/evaluate.py": "import sqlalchemy as sa",
        "storage/models.py": "from sqlalchemy.orm import Mapped",
        "reid/train.py": "import ultralytics.utils",
    }
    faults = house_rules.strayed_libraries(sources)
    assert [fault.split()[0] for fault in faults] == ["reid/train.py", "streamer/evaluate.py", "streamer/supervisor.py"]


def test_a_path_of_one_machine_is_found() -> None:
    folders = ["work", "root", "home/anna", "Users/anna"]
    for folder in folders:
        assert house_rules.machine_paths(f'open("/{folder}/data.csv")') == [f"/{folder}"]
    assert house_rules.machine_paths("../shared/work/x, ${HOME}/root, sqlite:///runs/demo.db, http://host/works") == []


def test_commands_are_read_out_of_shell_blocks_alone() -> None:
    page = "```bash\n# first\nmake demo   # a minute\npython -m storage \\\n    vehicles\n```\n```yaml\nsite: x\n```\n"
    assert house_rules.shell_commands(page) == ["make demo", "python -m storage vehicles"]


# --- The project keeps them.


def test_imports_follow_one_direction() -> None:
    assert house_rules.wrong_directions(_sources()) == []


def test_modules_form_a_line() -> None:
    assert house_rules.import_cycle(_sources()) == []


def test_each_library_stays_in_its_home() -> None:
    assert house_rules.strayed_libraries(_sources()) == []


@pytest.mark.parametrize("package", ["streamer", "storage"])
def test_help_loads_no_network_library(package: str) -> None:
    probe = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", probe, package], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_every_package_is_typed() -> None:
    rooms = [room for room in house_rules.MAY_IMPORT if (ROOT / room).is_dir()]
    assert [room for room in rooms if not (ROOT / room / "py.typed").is_file()] == []


def test_no_file_is_named_after_nothing() -> None:
    assert [name for name in _tracked() if Path(name).name in house_rules.VAGUE_NAMES] == []


def test_the_repository_stays_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in _tracked()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}
    binaries = [name for name in sizes if _is_binary((ROOT / name).read_bytes())]
    assert sum(sizes[name] for name in binaries) < MAX_BINARY_BYTES


def test_no_file_knows_one_machine() -> None:
    faults = {}
    for name in _tracked():
        content = (ROOT / name).read_bytes()
        if not _is_binary(content) and (paths := house_rules.machine_paths(content.decode())):
            faults[name] = paths
    assert faults == {}


def test_the_site_file_of_the_containers_is_one_that_loads() -> None:
    secrets = {"DATABASE_PASSWORD": "secret", "RTSP_PASSWORD": "secret"}
    assert load_site(ROOT / "docker" / "site.yaml", secrets).bus != "memory"


# --- The README's commands exist.

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({command.removeprefix(".venv/bin/") for command in house_rules.shell_commands(README)})


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_a_make_target_of_the_readme_exists(command: str) -> None:
    assert command.split()[1] in house_rules.make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python ")])
def test_a_python_command_of_the_readme_knows_its_options(command: str) -> None:
    words = shlex.split(command)[1:]
    program = words[:2] if words[0] == "-m" else words[:1]
    rest = words[len(program) :]
    subcommand = [word for word in rest[:1] if word.isalpha() and word.islower()]
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    shown = subprocess.run(
        [sys.executable, *program, *subcommand, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert [option for option in options if option not in shown.stdout] == []


def test_the_files_that_the_readme_runs_exist() -> None:
    words = {word for command in COMMANDS for word in shlex.split(command)}
    named = [word for word in words if word.startswith(("configs/", "benchmarks/", "docker/", "tests/", "weights/"))]
    assert [word for word in named if not (ROOT / word).exists()] == []
