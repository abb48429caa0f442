"""What the supervisor hands to each kind of worker. Light: importing this loads no library of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.config import EmbedderConfig, SiteConfig


@dataclass(frozen=True, slots=True)
class CameraSetup:
    """What a camera worker is given.

    Attributes:
        site: The site.
        cameras: Ids of this worker's cameras.
        stage: Its row on the board.
        embedder_address: The embedding worker's socket.
        trace: Where to note when each sighting's frame was taken, for measuring; None: nowhere.
    """

    site: SiteConfig
    cameras: tuple[str, ...]
    stage: str
    embedder_address: str
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
    """

    site: SiteConfig
    stage: str
    trace: Path | None = None


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
