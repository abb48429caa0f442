"""Pillow as it is: the detector's library, once loaded, changes it for the whole run. The page never runs beside it."""

from __future__ import annotations

import sys

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def pillow_opens_pictures_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would install a package where it meets what is no picture."""
    patches = sys.modules.get("ultralytics.utils.patches")
    if patches is not None:
        monkeypatch.setattr(Image, "open", patches._image_open)
