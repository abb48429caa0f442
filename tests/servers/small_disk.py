"""A disk that is small, can be filled, and can be made read-only: a file system in memory."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.servers.need import absent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BALLAST = "ballast"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class SmallDisk:
    """The disk; `small_disk` mounts one.

    Attributes:
        folder: Where it is mounted.
    """

    folder: Path

    @contextmanager
    def full(self) -> Iterator[None]:
        """Inside, there is no room for anything."""
        ballast = self.folder / _BALLAST
        with ballast.open("wb", buffering=0) as file:
            _fill(file.fileno())
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Inside, nothing can be written; nobody may have a file open for writing when it begins."""
        _run("mount", "-o", "remount,ro", str(self.folder))
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self.folder))


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounts a disk of that size on a folder of that name; the test is skipped where we may not."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        absent("only root can mount a small disk")
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(folder))
    except subprocess.CalledProcessError as error:
        absent(f"no small disk can be mounted here: {error.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily, for files that a failed test has left open.
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_TIMEOUT_S, capture_output=True, text=True)


def _fill(file: int) -> None:
    block = bytes(1 << 16)
    while block:
        try:
            while os.write(file, block):
                pass
        except OSError:
            # The last pages too: less and less, until nothing fits.
            block = block[: len(block) // 2]
