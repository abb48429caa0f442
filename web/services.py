"""What routes and pages share: the site, its database and pictures, and the one way to ask and to decide."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from storage.asking import Inquiry, asked, decided
from storage.crop_store import CropStore
from storage.errors import TransientStorageError
from web.clips import Clips
from web.likeness import likeness_index
from web.logins import still
from web.picture_search import PictureSearch
from web.signed_links import SignedLinks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from storage.database import Database, Session
    from storage.likeness import LikenessIndex
    from streamer.config import SiteConfig
    from web.callers import Caller

#: How long the database may take for a step of an answer. One that is frozen is given up `storage.engines.SILENCE_S`
#: later: else a few people who wait for it would hold all threads, and nothing would be answered any more.
ANSWER_TIMEOUT_S = 20.0
#: Searches by looks at once, of all people: they come one by one in the end, and the first reads all vectors, while
#: each would hold a connection that other questions wait for.
SEARCHES_AT_ONCE = 3
#: How long a search waits for others.
SEARCH_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """How this program's look-out for watched vehicles is doing.

    Attributes:
        failures: Rounds that failed since the program started.
        trouble: Why the last one did, in one line; empty where it did not.
    """

    failures: int = 0
    trouble: str = ""


class Services:
    """All that an answer needs. Made once per program; safe for several threads.

    Args:
        site: The site file.
        database: Open.

    Attributes:
        site: The site file.
        database: Open.
        crops: Crops and context pictures.
        zone: In which people read times.
        links: Addresses of pictures and clips.
        clips: Films of stops, cut out of the cameras' files.
        pictures: What describes pictures that people send.
        watch: How the look-out for watched vehicles is doing; written by `web.watching` alone.
        is_public: Other machines reach the program: nobody is answered without an account, even if there is none.
    """

    def __init__(self, site: SiteConfig, database: Database) -> None:
        self.site = site
        self.database = database
        self.crops = CropStore(site.crops_dir)
        self.zone = ZoneInfo(site.time_zone)
        self.links = SignedLinks(site.web.link_minutes * 60)
        self.pictures = PictureSearch(site)
        self.clips = Clips(site, database)
        self.watch = WatchHealth()
        self.is_public = False
        self._likeness: LikenessIndex | None = None
        self._likeness_lock = Lock()
        self._searches = BoundedSemaphore(SEARCHES_AT_ONCE)

    @property
    def likeness(self) -> LikenessIndex:
        """Who looks like whom. Its first question reads all vectors: some 20 s where there are a million.

        Raises:
            PictureSearchError: The site's calibration can't be read.
        """
        with self._likeness_lock:
            if self._likeness is None:
                self._likeness = likeness_index(self.site)
            return self._likeness

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Around a search by looks: before `asking`, so that whoever waits for others holds no connection.

        Raises:
            TransientStorageError: Others take too long.
        """
        if not self._searches.acquire(timeout=SEARCH_WAIT_S):
            raise TransientStorageError("other searches are under way: try again in a moment")
        try:
            yield
        finally:
            self._searches.release()

    def asking(
        self, caller: Caller, action: str, subject: str = "", **details: object
    ) -> AbstractContextManager[Session]:
        """A session to read from, once it has been noted who asks what.

        Args:
            caller: Who asks.
            action: What, in a word.
            subject: The vehicle or tracklet; empty: a question about many.
            details: Filters.

        Raises:
            EndedError: The caller's login has ended, or their rights have changed.
        """
        return asked(self.database, Inquiry(action, still(self.database, caller).person, subject, details))

    @contextmanager
    def following(self, caller: Caller) -> Iterator[Session]:
        """A session to read again from what somebody has open: a note every few seconds would bury all others.

        Raises:
            EndedError: As of `asking`.
        """
        still(self.database, caller)
        with self.database.snapshot() as session:
            yield session

    def deciding(
        self, caller: Caller, action: str, subject: str = "", **details: object
    ) -> AbstractContextManager[Session]:
        """As `asking`, in a transaction that nobody else decides beside; see `storage.asking.decided`."""
        return decided(self.database, Inquiry(action, still(self.database, caller).person, subject, details))

    def close(self) -> None:
        """Lets go of the database."""
        self.database.close()
