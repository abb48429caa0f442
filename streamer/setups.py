"""What the supervisor hands to each kind of worker. Light: importing this loads no library of theirs."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.config import CameraConfig, EmbedderConfig, SiteConfig


@dataclass(frozen=True, slots=True)
class CameraSetup:
    """What a camera worker is given.

    Attributes:
        site: The site.
        cameras: Ids of this worker's cameras.
        stage: Its row on the board.
        embedder_address: The embedding worker's socket.
        news: Where the next setup lies once the site's cameras have changed; see `put_news`.
        edition: Of the site; the board's tells when there is a newer one.
        trace: Where to note when each sighting's frame was taken, for measuring; None: nowhere.
    """

    site: SiteConfig
    cameras: tuple[str, ...]
    stage: str
    embedder_address: str
    news: Path
    edition: int = 0
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingSetup:
    """What an embedding worker is given.

    Attributes:
        config: Weights, device, batches.
        address: The socket to listen on.
        stage: Its row on the board.
        threads: CPU threads; None for the library's choice.
    """

    config: EmbedderConfig
    address: str
    stage: str
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class MatcherSetup:
    """What a matcher is given.

    Attributes:
        site: The site.
        stage: Its row on the board.
        trace: Where to note when sightings were committed, for measuring; None: nowhere.
        edition: Of the site; a matcher ends once the board tells of a newer one, to be started with that.
    """

    site: SiteConfig
    stage: str
    trace: Path | None = None
    edition: int = 0


@dataclass(frozen=True, slots=True)
class ForwarderSetup:
    """What a forwarder is given.

    Attributes:
        site: The site.
        stage: Its row on the board.
    """

    site: SiteConfig
    stage: str


WorkerSetup = CameraSetup | EmbeddingSetup | MatcherSetup | ForwarderSetup


def camera_entry(site: SiteConfig, name: str) -> tuple[CameraConfig, str] | None:
    """All that a site says of a camera: its keys, and its region; None where it has no such camera."""
    found = (camera for camera in site.cameras if camera.id == name)
    return next(((camera, site.region_of(camera)) for camera in found), None)


def put_news(setup: CameraSetup) -> None:
    """Lays a setup where its worker will look; raise the board's edition afterwards. Blocks for the disk.

    A pipe would make the supervisor wait for a worker that doesn't read.

    Raises:
        OSError: There is no room for it.
    """
    draft = setup.news.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(setup))
    draft.replace(setup.news)


def read_news(path: Path) -> CameraSetup:
    """What `put_news` has laid there last.

    Raises:
        OSError: It can't be read.
    """
    # The folder is the supervisor's, for it and its children alone.
    setup: CameraSetup = pickle.loads(path.read_bytes())  # noqa: S301
    return setup
