"""Which processes a site is made of: stages by role, and what each is started with."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from streamer.child_process import ChildSpec
from streamer.counters import RowState
from streamer.lanes import SETTLED
from streamer.setups import CameraSetup, EmbeddingSetup, ForwarderSetup, MatcherSetup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Board

EMBEDDER, MATCHER, FORWARDER, SUPERVISOR = "embedder", "matcher", "forwarder", "supervisor"


class Role(StrEnum):
    """Which part of a site this program runs."""

    ALL = "all"
    EDGE = "edge"
    MATCHER = "matcher"


class SitePlan:
    """The stages of a site, or of a part of it.

    Args:
        site: The site.
        role: Which part of it.
    """

    def __init__(self, site: SiteConfig, role: Role) -> None:
        self.site = site
        self.has_edge, self.has_matcher = role is not Role.MATCHER, role is not Role.EDGE
        count = min(site.workers, len(site.cameras)) if self.has_edge else 0
        #: The camera workers.
        self.workers = tuple(f"cameras-{number}" for number in range(count))
        names = [camera.id for camera in site.cameras]
        self._dealt = {stage: tuple(names[place::count]) for place, stage in enumerate(self.workers)}
        self._left: tuple[CameraConfig, ...] = ()

    @property
    def stages(self) -> list[str]:
        """Every row that the board needs beside the cameras'."""
        edge = [EMBEDDER, *self.workers] if self.has_edge else []
        forwarder = [FORWARDER] if self.has_edge and self.site.bus != "memory" else []
        return [SUPERVISOR, *edge, *forwarder, *([MATCHER] if self.has_matcher else [])]

    def cameras_of(self, stage: str) -> tuple[str, ...]:
        """The cameras of a worker, dealt in turn; none for other stages."""
        return self._dealt.get(stage, ())

    def adopt(self, site: SiteConfig) -> None:
        """Takes up another edition of the site: cameras stay with their workers, new ones go where there are fewest."""
        names = [camera.id for camera in site.cameras]
        self._left = tuple(camera for camera in (*self._left, *self.site.cameras) if camera.id not in names)
        self.site = site
        self._dealt = {stage: tuple(name for name in dealt if name in names) for stage, dealt in self._dealt.items()}
        known = {name for dealt in self._dealt.values() for name in dealt}
        for name in names:
            if name not in known and self.workers:
                stage = min(self.workers, key=lambda stage: len(self._dealt[stage]))
                self._dealt[stage] = (*self._dealt[stage], name)

    def is_of_files_alone(self, stage: str) -> bool:
        """Whether a stage ends by itself: a worker without live cameras, or anything at a site without them."""
        cameras = self.cameras_of(stage) or [camera.id for camera in self.site.cameras]
        return not any(self.site.camera(name).is_live for name in cameras)

    def specs(self, board: Board, folder: Path, trace: Path | None) -> list[ChildSpec]:
        """The children to start; without cameras left to read, neither embedder nor camera workers.

        Args:
            board: Tells which cameras are over already.
            folder: Private, for the embedder's socket.
            trace: Where to note times, for measuring; None: nowhere.
        """
        site, stages = self.site, self.stages
        specs = []
        if self.has_edge and unfinished(board, board.cameras):
            embed = EmbeddingSetup(site.embedder, _address(folder), EMBEDDER)
            specs.append(ChildSpec(EMBEDDER, "streamer.embedding_worker:run_embedding_worker", lambda: embed))
            specs += [self._camera_spec(stage, board, folder, trace) for stage in self.workers]
        if FORWARDER in stages:
            forward = ForwarderSetup(site, FORWARDER)
            specs.append(ChildSpec(FORWARDER, "streamer.forwarder_process:run_forwarder", lambda: forward))
        if MATCHER in stages:

            def make_setup() -> MatcherSetup:
                return self._matcher_setup(board, trace)

            specs.append(ChildSpec(MATCHER, "streamer.matcher_process:run_matcher", make_setup))
        return specs

    def camera_setup(self, stage: str, board: Board, folder: Path, trace: Path | None) -> CameraSetup:
        """What a camera worker is given: its cameras of which more may come."""
        return CameraSetup(
            self.site,
            unfinished(board, self.cameras_of(stage)),
            stage,
            _address(folder),
            folder / f"{stage}.news",
            board.edition,
            trace and trace / f"{stage}.csv",
        )

    def _matcher_setup(self, board: Board, trace: Path | None) -> MatcherSetup:
        # The last words of cameras that have left are still on their way, and a matcher puts aside those of strangers.
        site = self.site.model_copy(update={"cameras": (*self.site.cameras, *self._left)})
        return MatcherSetup(site, MATCHER, trace and trace / "commits.csv", board.edition)

    def _camera_spec(self, stage: str, board: Board, folder: Path, trace: Path | None) -> ChildSpec:
        def make_setup() -> CameraSetup | None:
            # A worker that is started anew leaves alone the files that it has read to their end.
            setup = self.camera_setup(stage, board, folder, trace)
            for name in setup.cameras:
                board.camera(name).state = RowState.STARTING
            return setup if setup.cameras else None

        return ChildSpec(stage, "streamer.camera_process:run_camera_worker", make_setup)


def _address(folder: Path) -> str:
    return str(folder / "embedder")


def unfinished(board: Board, cameras: Iterable[str]) -> tuple[str, ...]:
    """Those of which more may come."""
    return tuple(name for name in cameras if board.camera(name).state not in SETTLED)
