"""What the search view says, to whom, and how many of its questions are asked at once."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING

import pytest

from reid.modality import Modality
from storage.accounts import Role
from storage.errors import StorageError, TrackletNotFoundError, TransientStorageError
from tests.web.asking import small_site
from web.callers import Caller
from web.picture_search import PictureSearchError

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.blocking import Latest
    from web.pages.frame import View
    from web.pages.search import _band_words, _told

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "/srv/site/model.pt"


def test_one_question_is_asked_at_a_time_and_of_those_put_meanwhile_the_last() -> None:
    async def asked() -> list[tuple[int, bool]]:
        chosen, answered = [0], list[tuple[int, bool]]()
        goes_on = asyncio.Event()

        async def answer() -> None:
            this = chosen[-1]
            await goes_on.wait()
            answered.append((this, question.is_outdated))

        question = Latest(answer)
        first = asyncio.ensure_future(question.ask())
        await asyncio.sleep(0)
        for number in (1, 2, 3):
            chosen.append(number)
            await question.ask()
        goes_on.set()
        await first
        await question.ask()
        return answered

    assert asyncio.run(asked()) == [(0, True), (3, False), (3, False)]


def test_after_a_question_that_failed_others_are_asked() -> None:
    failures = [ValueError("first")]

    async def answer() -> None:
        if failures:
            raise failures.pop()

    async def asked() -> None:
        question = Latest(answer)
        with pytest.raises(ValueError, match="first"):
            await question.ask()
        await question.ask()

    asyncio.run(asked())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PictureSearchError(f"pictures can't be described: {SECRET}: no such weights"), "can't be used"),
        (TransientStorageError(f"database {SECRET}: locked"), "does not answer"),
        (TrackletNotFoundError("tracklet x: not known"), "tracklet x: not known"),
    ],
)
def test_where_things_lie_is_told_to_operators_alone(tmp_path: Path, error: StorageError, said: str) -> None:
    with small_site(tmp_path) as ask:
        viewer = _told(View(ask.services, Caller("vera", Role.VIEWER)), error)
        assert said in viewer
        assert SECRET not in viewer
        assert _told(View(ask.services, Caller("otto", Role.OPERATOR)), error) == str(error)


def test_a_band_that_does_not_fit_the_pictures_colours_is_remarked_on() -> None:
    visible, infrared, thermal = Modality.VISIBLE, Modality.NEAR_INFRARED, Modality.THERMAL
    assert "little may be found" in _band_words(visible, thermal)
    assert "near infrared pictures" in _band_words(visible, infrared)
    assert "little may be found" in _band_words(infrared, visible)
    for guess, chosen in ((visible, visible), (infrared, infrared), (infrared, thermal)):
        assert "little" not in _band_words(guess, chosen)
