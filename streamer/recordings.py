"""Recordings by their address: which of them are image sequences, and the session that each one is."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.config import CameraConfig

_SEQUENCE_NUMBER = re.compile(r"%0?\d*d")


def is_sequence(url: str) -> bool:
    """Whether an address names numbered images: `%06d.tiff` or `*.png`."""
    name = Path(url).name
    return "://" not in url.removeprefix("file://") and (bool(_SEQUENCE_NUMBER.search(name)) or "*" in name)


def sequence_files(url: str) -> list[Path]:
    """The images of a sequence that exist, in order."""
    path = Path(url.removeprefix("file://"))
    if "*" in path.name:
        return sorted(path.parent.glob(path.name))
    return [file for _, file in sorted(numbered(path).items())]


def numbered(path: Path) -> dict[int, Path]:
    """The images of a numbered sequence that exist, by their number."""
    pattern = re.compile(_SEQUENCE_NUMBER.sub(r"(\\d+)", re.escape(path.name), count=1))
    matches = ((pattern.fullmatch(file.name), file) for file in path.parent.glob("*"))
    return {int(match.group(1)): file for match, file in matches if match}


def file_session(camera: CameraConfig) -> str:
    """A file's session id: the same in each replay, another for another camera, file or start time.

    A hash of the camera's id, the file's name and size and the configured start time; not of the folder, so that a
    site may move. Reads the file's size, never its content; a missing file has an id too.
    """
    path = Path(camera.url.removeprefix("file://"))
    files = sequence_files(camera.url) if is_sequence(camera.url) else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    start = "" if camera.start_time is None else camera.start_time.astimezone(UTC).isoformat()
    identity = "\n".join((camera.id, path.name, str(len(files)), str(size), start))
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
