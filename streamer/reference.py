"""How each camera should see: a picture per camera in a folder, made once, by which a camera that was moved is told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np

from streamer.dating import SessionClock
from streamer.frame_maker import FrameMaker
from streamer.sources import SourceError, open_source
from streamer.stream import now

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from streamer.config import CameraConfig, SiteConfig, SourceConfig

#: Of the camera's time: long enough for most vehicles to have passed on.
WATCH_S = 20.0
#: Pictures of which the median is taken; nine of 1080p are 18 MB.
PICTURES = 9


class ReferencePictureError(Exception):
    """A reference can't be read or written; one line that names the file."""


def load_reference(folder: Path, camera: str) -> NDArray[np.uint8] | None:
    """The (H, W) luma of a camera's reference; None where the folder has none of it.

    Raises:
        ReferencePictureError: The file is no picture.
    """
    path = folder / f"{camera}.png"
    if not path.exists():
        return None
    found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if found is None:
        raise ReferencePictureError(f"camera_health.references: {path}: no picture")
    return found.astype(np.uint8, copy=False)


def take_reference(camera: CameraConfig, source: SourceConfig, *, seconds: float = WATCH_S) -> NDArray[np.uint8]:
    """The (H, W) luma that a camera shows most of the time, so that what drives by is not part of it.

    Blocks for the open timeout, `seconds` of the camera's time and twice the read timeout at most.

    Raises:
        SourceError: It can't be read, or no picture of it can be decoded.
    """
    opened = open_source(camera, source)
    try:
        clock, maker = SessionClock(camera, source, opened.info, now), FrameMaker(camera)
        taken: list[NDArray[np.uint8]] = []
        began_s = None
        for index, decoded in enumerate(opened.pictures()):
            captured_s = clock.date(decoded)
            began_s = captured_s if began_s is None else began_s
            if captured_s - began_s >= len(taken) * seconds / PICTURES:
                taken.append(maker.make(decoded.picture, "reference", index, captured_s).luma().copy())
            if len(taken) == PICTURES:
                break
    finally:
        opened.close()
    alike = [picture for picture in taken if picture.shape == taken[-1].shape]
    if not alike:
        raise SourceError(f"{camera.id}: no picture could be decoded")
    middle: NDArray[np.uint8] = np.median(np.stack(alike), axis=0).astype(np.uint8)
    return middle


def write_references(site: SiteConfig, folder: Path, *, seconds: float = WATCH_S) -> list[str]:
    """Takes and writes the picture of every camera of a site; goes on after one that can't be read.

    Returns:
        What went wrong, one line each.

    Raises:
        ReferencePictureError: The folder can't be written.
    """
    problems = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReferencePictureError(f"{folder}: {error.strerror or error}") from error
    for camera in site.cameras:
        try:
            picture = take_reference(camera, site.source, seconds=seconds)
        except SourceError as error:
            problems.append(str(error))
            continue
        path = folder / f"{camera.id}.png"
        if not cv2.imwrite(str(path), picture):
            raise ReferencePictureError(f"{path}: can't be written")
        sys.stdout.write(f"{path}\n")
    return problems


def run_reference(site: SiteConfig, *, seconds: float) -> int:
    """The command; the exit status: 0, or 2 where a camera's picture could not be taken or kept."""
    folder = site.camera_health.references
    if folder is None:
        sys.stderr.write("camera_health.references: name a folder in the site file\n")
        return 2
    try:
        problems = write_references(site, folder, seconds=seconds)
    except ReferencePictureError as error:
        problems = [str(error)]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 2 if problems else 0
