"""What a person sees who makes a mistake: one line that names it, and exit 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.streamer.site_files import DEMO_CLIPS, ROOT, demo_site, streamer, write_site


def refused(*arguments: str | Path) -> list[str]:
    """Runs the program, which must refuse; what it said on stderr, without its log."""
    done = streamer(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return [line for line in done.stderr.splitlines() if not line.startswith("timestamp=")]


def test_help_loads_no_network_library() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom streamer.__main__ import app\n"
        "result = CliRunner().invoke(app, ['--help'])\nassert result.exit_code == 0, result.output\n"
        "print(sorted({'torch', 'cv2', 'av', 'openvino', 'ultralytics', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"camera": []}, "camera: unknown key"),
        ({"cameras": [{"id": "cam1", "url": "a.mp4"}, {"id": "cam1", "url": "b.mp4"}]}, "cam1"),
        ({"cameras": [{"id": "cam1", "url": "rtsp://user:${NO_SUCH_SECRET}@host/"}]}, "NO_SUCH_SECRET"),
    ],
    ids=["unknown key", "one id twice", "unset secret"],
)
def test_a_bad_site_file_is_refused(tmp_path: Path, changes: dict[str, Any], culprit: str) -> None:
    good = {"cameras": [{"id": "cam1", "url": str(DEMO_CLIPS / "cam1_rgb.mp4")}]}

    (line,) = refused("--config", write_site(tmp_path, good | changes))
    assert culprit in line


def test_a_missing_site_file_and_an_unknown_role_are_refused(tmp_path: Path) -> None:
    (line,) = refused("--config", tmp_path / "none.yaml")
    assert "none.yaml" in line
    (line,) = refused("--config", demo_site(tmp_path), "--role", "cook")
    assert "cook" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "weights"),
    [
        ("detector.weights", ROOT / "tests" / "data" / "site"),
        ("embedder.weights", ROOT / "weights" / "yolo11n-vehicles_int8_openvino_model"),
    ],
)
def test_weights_of_the_wrong_kind_are_refused(tmp_path: Path, key: str, weights: Path) -> None:
    section, name = key.split(".")

    (line,) = refused("--config", demo_site(tmp_path, ("cam1",), **{section: {name: str(weights)}}))
    assert line.startswith(f"{key}: {weights}")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    changes = {"cameras": [{"id": "cam1", "url": "rtsp://user:hunter2@host/", "modality": "radio"}]}
    done = streamer("--config", write_site(tmp_path, changes))

    assert done.returncode == 2
    assert "hunter2" not in done.stderr + done.stdout
