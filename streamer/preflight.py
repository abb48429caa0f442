"""What is checked before anything is started: that files open, weights exist and pictures can be kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from streamer.children import StartError
from streamer.sources import SourceError, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamer.config import CameraConfig, SiteConfig

_log = structlog.get_logger(__name__)


def check_edge(site: SiteConfig) -> None:
    """Checks what cameras and embedder need.

    A file that doesn't open is reported, and the others run; a live camera is tried for ever.

    Raises:
        StartError: No camera can ever give a frame, or weights are missing, or pictures can't be kept. A line each.
    """
    problems = [*_missing_weights(site), *_unwritable(site.crops_dir)]
    faults = {camera.id: fault for camera in site.cameras if (fault := _file_fault(camera, site))}
    if len(faults) == len(site.cameras):
        problems += [f"cameras: {name}: {fault}" for name, fault in faults.items()]
    if problems:
        raise StartError("\n".join(problems))
    for name, fault in faults.items():
        _log.warning("camera can't be opened, the others go on", camera=name, reason=fault)


def _missing_weights(site: SiteConfig) -> Iterator[str]:
    detector = site.detector
    used = {
        "detector.weights": detector.weights,
        **{f"detector.weights_by_modality.{name}": path for name, path in detector.weights_by_modality.items()},
        **{f"cameras: {camera.id}: detector": camera.detector for camera in site.cameras if camera.detector},
    }
    for key, weights in used.items():
        if not Path(weights).exists() and not (detector.allow_download and "/" not in weights):
            yield f"{key}: {weights}: no such file or folder"
    if not Path(site.embedder.weights).exists():
        yield f"embedder.weights: {site.embedder.weights}: no such file or folder"


def _unwritable(folder: Path) -> Iterator[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield f"crops_dir: {folder}: {error.strerror or error}"


def _file_fault(camera: CameraConfig, site: SiteConfig) -> str:
    """Why a camera's file gives no frames; empty for live cameras and for files that do."""
    if camera.is_live:
        return ""
    try:
        source = open_source(camera, site.source)
    except SourceError as error:
        return str(error)
    try:
        first = next(source.pictures(), None)
    except SourceError as error:
        return str(error)
    finally:
        source.close()
    return "" if first is not None else f"{source.info.shown}: no picture could be decoded"
