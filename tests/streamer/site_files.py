"""Site files and programs for tests that run the real thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEMO_CLIPS = ROOT / "tests" / "data" / "site"
DEMO_CAMERAS = {
    "cam1": ("cam1_rgb.mp4", "visible"),
    "cam2": ("cam2_thermal.mp4", "thermal"),
    "cam3": ("cam3_rgb.mp4", "visible"),
    "cam4": ("cam4_nir.mp4", "near_infrared"),
}


def demo_site(folder: Path, cameras: tuple[str, ...] = tuple(DEMO_CAMERAS), **changes: Any) -> Path:  # noqa: ANN401
    """A site file over the demo's clips, with database and pictures in `folder`."""
    entries = [
        {
            "id": name,
            "url": str(DEMO_CLIPS / DEMO_CAMERAS[name][0]),
            "modality": DEMO_CAMERAS[name][1],
            "start_time": "2026-01-01T12:00:00Z",
        }
        for name in cameras
    ]
    return write_site(folder, {"cameras": entries} | changes)


def write_site(folder: Path, changes: dict[str, Any]) -> Path:
    """A site file of these keys; name, database and crops_dir have defaults."""
    path = folder / "site.yaml"
    document = {"site": "test", "database": "sqlite:///test.db", "crops_dir": "crops"} | changes
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def streamer(
    *arguments: str | Path, environment: dict[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m streamer` to its end."""
    command = [sys.executable, "-m", "streamer", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
