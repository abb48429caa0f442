"""What libraries of the same test run have changed for all, taken back: the page never runs beside them."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def pillow_opens_pictures_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector's library, once loaded, has Pillow install a package when it meets what is no picture."""
    patches = sys.modules.get("ultralytics.utils.patches")
    if patches is not None:
        monkeypatch.setattr(Image, "open", patches._image_open)


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """What a module logs meanwhile, also where a library has switched its logger off."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, ear = logging.getLogger(name), Ear()
    before = logger.disabled, logger.level
    logger.disabled = False
    logger.setLevel(logging.INFO)
    logger.addHandler(ear)
    try:
        yield said
    finally:
        logger.removeHandler(ear)
        logger.disabled = before[0]
        logger.setLevel(before[1])
