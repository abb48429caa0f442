"""Pictures stay in their folder, and are there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.crop_store import CropStore
from storage.errors import StorageError


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store = CropStore(tmp_path / "crops")
    assert store.save("gate/2026/1.jpg", b"first") == "gate/2026/1.jpg"
    store.save("gate/2026/1.jpg", b"second")
    assert store.load("gate/2026/1.jpg") == b"second"
    assert _files(tmp_path) == ["crops/gate/2026/1.jpg"]


@pytest.mark.parametrize(
    "relative", ["", ".", "/", "/etc/passwd", "..", "../1.jpg", "a/../../1.jpg", "a\\..\\1.jpg", "a\0.jpg", "//a"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, relative: str) -> None:
    store = CropStore(tmp_path / "crops")
    for attempt in (store.path, store.load, lambda name: store.save(name, b"x")):
        with pytest.raises(StorageError, match="wanted a path below"):
            attempt(relative)
    assert _files(tmp_path) == []


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "link").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="leads out of"):
        CropStore(tmp_path / "crops").load("link/secret.txt")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.jpg", "...", " ", "~"]), max_size=6).map("/".join))
def test_no_path_at_all_leaves_the_folder(relative: str) -> None:
    with TemporaryDirectory() as folder:
        store = CropStore(Path(folder) / "crops")
        try:
            store.save(relative, b"x")
        except StorageError:
            assert _files(Path(folder)) == []
        else:
            (written,) = _files(Path(folder))
            assert written.startswith("crops/")


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"crops/1\.jpg: No such file or directory"):
        CropStore(tmp_path / "crops").load("1.jpg")


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = CropStore(tmp_path)
    store.save("1.jpg/2.jpg", b"x")
    with pytest.raises(StorageError, match="Is a directory"):
        store.save("1.jpg", b"y")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        store.save("1.jpg/2.jpg/3.jpg", b"y")
    assert _files(tmp_path) == ["1.jpg/2.jpg"]
