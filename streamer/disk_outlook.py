"""How long a site's disks will last: of the folders that grow, what is free, and what the last days have added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.disk_forecast import disk_days_left, free_bytes
from storage.errors import StorageError
from storage.locations import database_folder

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.config import SiteConfig


@dataclass(frozen=True, slots=True)
class DiskOutlook:
    """One folder that grows.

    Attributes:
        name: `outbox`, `crops` or `database`.
        folder: Where it lies.
        bytes_free: On its disk.
        days_left: By all that the site adds to that disk; None where nothing is, or nothing is known of it.
    """

    name: str
    folder: Path
    bytes_free: int
    days_left: float | None


def disk_folders(site: SiteConfig) -> dict[str, Path]:
    """Folders that grow, by their names in metrics; a database on a server is not among them."""
    folders = {"outbox": site.outbox_path.parent, "crops": site.crops_dir}
    if (folder := database_folder(site.database)) is not None:
        folders["database"] = folder
    return folders


def disk_outlooks(site: SiteConfig, bytes_per_day: dict[str, float]) -> list[DiskOutlook]:
    """The folders' disks; one that can't be asked is left out.

    What retention will have removed is not counted back: a disk lasts at least so long.

    Args:
        site: The site.
        bytes_per_day: What each folder grows by, by its name; an outbox that is emptied doesn't.
    """
    folders = disk_folders(site)
    disks = {name: _disk(folder) for name, folder in folders.items()}
    found = []
    for name, folder in folders.items():
        together = sum(bytes_per_day.get(other, 0.0) for other in folders if disks[other] == disks[name])
        try:
            found.append(DiskOutlook(name, folder, free_bytes(folder), disk_days_left(folder, together)))
        except StorageError:
            continue
    return found


def _disk(folder: Path) -> int | None:
    """The device that a folder lies on, or will once it is made."""
    nearest = next((one for one in (folder, *folder.absolute().parents) if one.exists()), None)
    return None if nearest is None else nearest.stat().st_dev
