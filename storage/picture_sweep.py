"""Picture files that no row names: written before a crash, or by an edge whose sighting never came."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from storage.removal import Removed, remove_pictures

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from storage.crop_store import CropStore

#: Where the program writes pictures below `crops_dir`; what else lies there is somebody else's.
FOLDERS = ("crops", "context")
_SUFFIX = ".jpg"


def sweep_pictures(crops: CropStore, written_before: datetime, kept: Collection[str]) -> Iterator[Removed]:
    """Removes pictures by the age of their files; what was removed, folder by folder.

    Args:
        crops: Where they lie.
        written_before: Younger files stay.
        kept: Paths below `crops` that stay whatever their age.
    """
    oldest_s = written_before.timestamp()
    for name in FOLDERS:
        for folder, _, files in os.walk(crops.root / name):
            relative = Path(folder).relative_to(crops.root)
            paths = [(relative / file).as_posix() for file in files if file.endswith(_SUFFIX)]
            old = [path for path in paths if path not in kept and _written_s(crops.root / path) < oldest_s]
            if old:
                yield remove_pictures(crops, old).removed


def _written_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")  # gone meanwhile
