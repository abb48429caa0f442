"""What has become too old is removed beside a running matcher, as the site's `retention` says."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from storage.disk_forecast import growth
from storage.errors import StorageError
from storage.removal import Removed
from storage.retention import LEAST_AGE, Limits, Retention
from streamer.counters import Field

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.crop_store import CropStore
    from storage.database import Database
    from streamer.config import SiteConfig
    from streamer.counters import Row
    from streamer.site_sections import RetentionConfig

#: Between two transactions: a matcher that waits for the database has its turn.
PAUSE_S = 0.1
#: How long the end waits for the transaction under way; what is left goes at the next start.
STOP_TIMEOUT_S = 10.0
#: Between two looks at every picture file there is.
SWEEP_PERIOD = timedelta(days=1)

_log = structlog.get_logger(__name__)


def limits_of(site: SiteConfig) -> Limits:
    """What is too old by a site file; nothing is that a matcher may still compare, however short the days."""
    days, matcher = site.retention, site.matcher
    reach = timedelta(seconds=matcher.time_to_live_s + matcher.look_back_s + matcher.hold_s)
    least_age = max(LEAST_AGE, 2 * reach)
    return Limits(days.crops_days, days.embeddings_days, days.tracklets_days, days.audit_days, least_age)


def is_kept_by(site: SiteConfig) -> bool:
    """Whether a site's days are counted: films of long ago alone are looked at for other reasons, and stay."""
    return any(camera.is_live for camera in site.cameras)


class RetentionKeeper:
    """A thread that removes what is too old, at its start and every `retention.period_s`.

    Best effort: while the database is away, or a matcher keeps it waiting too long, the pass is given up and the next
    one goes on where it stopped. Nobody waits for it.

    Args:
        database: Open.
        crops: Where the pictures lie.
        limits: See `limits_of`.
        rules: How often, and how much at a time.
        row: Where it is told by how much the site grows.
        clock: Aware UTC, what ages count from.
    """

    def __init__(
        self,
        database: Database,
        crops: CropStore,
        limits: Limits,
        rules: RetentionConfig,
        row: Row,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._retention = Retention(database, crops, limits, batch=rules.batch)
        self._database, self._crops, self._row = database, crops, row
        self._period_s, self._clock = rules.period_s, clock
        self._swept_at: datetime | None = None
        self._failed = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    @property
    def failed(self) -> int:
        """Passes that were given up."""
        return self._failed

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; waits for the transaction under way, `STOP_TIMEOUT_S` at most. Safe before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.keep()
            self.measure()
            self._stopping.wait(self._period_s)

    def keep(self) -> Removed:
        """One pass, broken off by `stop`; a failure is counted. What it removed."""
        now, total = self._clock(), Removed()
        is_sweep_due = self._swept_at is None or now - self._swept_at >= SWEEP_PERIOD
        try:
            for removed in self._retention.run(now, sweep=is_sweep_due):
                total += removed
                if self._stopping.wait(PAUSE_S):
                    break
            else:
                self._swept_at = now if is_sweep_due else self._swept_at
        except StorageError as error:
            self._failed += 1
            _log.warning("retention given up for now", reason=str(error))
        self._tell(total)
        return total

    def measure(self) -> None:
        """Notes by how much the site has grown of late; what was known stays where the database can't be asked."""
        try:
            with self._database.snapshot() as session:
                found = growth(session, self._crops, self._clock())
        except StorageError as error:
            _log.warning("growth of the site not measured", reason=str(error))
            return
        self._row[Field.PICTURE_BYTES_PER_DAY] = found.picture_bytes_per_day
        self._row[Field.DATABASE_BYTES_PER_DAY] = found.database_bytes_per_day

    def _tell(self, removed: Removed) -> None:
        if counts := removed.counts():
            _log.info("too old, removed", **counts)
        if removed.stuck:
            _log.warning("pictures not removed", count=removed.stuck, reason=self._retention.trouble)
