"""Pictures, as files below one folder."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

from storage.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


class OutsideError(StorageError):
    """A picture's path that leads out of its folder."""


class CropStore:
    """Files below a folder, each named by its relative POSIX path. Several processes may write at once.

    Args:
        root: The folder; made on the first save.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, relative: str, data: bytes) -> str:
        """Writes a file whole or not at all; one that is there is replaced.

        Args:
            relative: Path below the folder, such as `cam1/2026-01-01/17.jpg`.
            data: The file's content.

        Returns:
            `relative`, to be stored.

        Raises:
            StorageError: The path leaves the folder, or the file can't be written.
        """
        path = self.path(relative)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, data)
        except OSError as error:
            raise StorageError(f"crop {path}: {error.strerror or error}") from error
        return relative

    def load(self, relative: str) -> bytes:
        """A file's content.

        Raises:
            StorageError: The path leaves the folder, or there is no such file.
        """
        path = self.path(relative)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"crop {path}: {error.strerror or error}") from error

    def remove(self, relative: str) -> int | None:
        """Removes a file, and the folders that it leaves empty.

        Returns:
            Its size in bytes; None where there is no such file.

        Raises:
            OutsideError: The path leaves the folder.
            StorageError: The file can't be removed.
        """
        path = self.path(relative)
        try:
            size = path.lstat().st_size
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"crop {path}: {error.strerror or error}") from error
        self._remove_empty(path.parent)
        return size

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return  # another picture lies there, or has just been put there
            folder = folder.parent

    def path(self, relative: str) -> Path:
        """Where a file lies.

        Raises:
            OutsideError: The path leaves the folder, by `..`, by being absolute, or through a link.
        """
        parts = PurePosixPath(relative).parts
        if not parts or ".." in parts or "\\" in relative or "\0" in relative or relative.startswith("/"):
            raise OutsideError(f"crop {relative!r}: wanted a path below {self.root}")
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise OutsideError(f"crop {relative!r}: leads out of {self.root}")
        return path


def _write_atomically(path: Path, data: bytes) -> None:
    # Not synced: a picture lost in a power cut is missed by nobody but the eye, and a sync costs 10 ms each.
    temporary = path.with_name(f".{uuid4().hex}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
