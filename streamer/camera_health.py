"""Whether a camera's picture can be trusted: frozen, covered, out of focus, or moved.

A pure core: it is shown the luma of a frame now and then, with its event time. What it compares with is the camera's
own past in the same band and about the same light, learned while the picture is good, so that neither nightfall nor a
switch to infrared looks like a fault: what has no past yet is not judged by it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: Pictures are compared at this width, edges softened by so many of its pixels: at half of it a turn by 3 degrees could
#: not be told from traffic, and what the wind moves is smaller.
_WIDTH, _SOFT = 320, 1.0
#: Looks that make a reference: a minute at one a second. Later ones count ever less, down to the last share, by which
#: a reference follows shadows and seasons, yet no fault that is told within seconds.
_LOOKS_TO_LEARN, _SLOWEST = 60, 1 / 600
#: A reference is for a band, and for a mean luma that differs from its own by so much at most.
_SAME_LIGHT = 30.0
#: Rows and columns of cells in which edges are compared: vehicles hide some of them, a moved camera changes all.
_CELLS = (5, 8)
#: A picture repeats another when a pixel differs by no more than this in the mean: what an encoder makes of a still
#: differs by rounding, while the quietest sensor of the clips differs several times as much. Raw pixels are compared,
#: since averaged ones have no noise.
_STILL = 0.02
#: A camera is only called frozen when its picture usually changes by so much: a noise-free scene repeats by itself.
_LIVELY = 0.08
#: Of cells: contrast, in steps of luma, below which one shows nothing; and the share of such cells in a picture that
#: shows nothing at all. A picture whose reference is about as empty is a dull place, not a covered camera.
_EMPTY_CONTRAST, _EMPTY_SHARE = 2.5, 0.9
#: Of the reference: sharpness that is left where focus is lost, and agreement of edges where a cell has changed.
_UNSHARP, _CHANGED = 0.5, 0.65
#: Edges that agree less with their own past than this tell nothing: leaves, water, traffic.
_LEAST_AGREEMENT = 0.4
#: Cells that must tell something, and the share of them that must have changed, where a camera was moved.
_LEAST_CELLS, _MOVED_SHARE = 6, 0.5


class PictureHealth(IntEnum):
    """What is wrong with a picture; numbers as they stand in `Field.HEALTH`."""

    UNKNOWN = 0
    OK = 1
    FROZEN = 2
    COVERED = 3
    DEFOCUSED = 4
    MOVED = 5

    @property
    def is_trouble(self) -> bool:
        """Whether the picture is not to be trusted."""
        return self > PictureHealth.OK


@dataclass(frozen=True, slots=True, eq=False)
class _Measures:
    """What is measured of one picture.

    Attributes:
        light: Mean luma.
        contrast: (R, C) standard deviation of luma by cell.
        sharpness: Energy of the Laplacian, as a share of the energy of the gradient: no matter of contrast.
        edges: (H, W) gradient, softened and normalised by its surroundings.
        raw: Single pixels, not averaged.
    """

    light: float
    contrast: Floats
    sharpness: float
    edges: Floats
    raw: NDArray[np.uint8]


class _Reference:
    """What a camera's good pictures look like in one band and one light."""

    def __init__(self, first: _Measures, looks: int = 1) -> None:
        self.looks, self.light = looks, first.light
        self.sharpness, self.edges, self.contrast = first.sharpness, first.edges.copy(), first.contrast.copy()
        self.agreement: Floats = np.ones(_CELLS, np.float32)

    @property
    def is_learned(self) -> bool:
        return self.looks >= _LOOKS_TO_LEARN

    def learn(self, seen: _Measures) -> None:
        self.looks += 1
        share = max(1 / self.looks, _SLOWEST)
        agreement = _agreement(self.edges, seen.edges)
        # The first pictures agree with a reference that is hardly more than themselves.
        self.agreement += max(share, 2 / _LOOKS_TO_LEARN) * (agreement - self.agreement)
        self.sharpness += share * (seen.sharpness - self.sharpness)
        self.edges += share * (seen.edges - self.edges)
        self.contrast += share * (seen.contrast - self.contrast)

    def is_unsharp(self, seen: _Measures) -> bool:
        return seen.sharpness < _UNSHARP * self.sharpness

    def has_moved(self, seen: _Measures) -> bool:
        telling = self.agreement >= _LEAST_AGREEMENT
        changed = _agreement(self.edges, seen.edges)[telling] < _CHANGED * self.agreement[telling]
        return int(telling.sum()) >= _LEAST_CELLS and float(changed.mean()) >= _MOVED_SHARE

    @property
    def is_empty(self) -> bool:
        return _is_empty(self.contrast)


class PictureWatch:
    """Watches one camera's picture. Not for several threads.

    A trouble is told once it has lasted `persist_s`, and so is its end; a gap in between begins the time anew.

    Args:
        period_s: Between two looks; what comes sooner is not looked at.
        persist_s: Of event time.
        reference: (H, W) uint8 luma of the camera as it should see, of the band that it shows first; None: the first
            minute is believed.
    """

    def __init__(self, period_s: float, persist_s: float, reference: NDArray[np.uint8] | None = None) -> None:
        self._period_s, self._persist_s = period_s, persist_s
        self._given = None if reference is None else _measured(reference)
        self._references: dict[tuple[str, tuple[int, ...]], list[_Reference]] = {}
        self._changes: deque[float] = deque(maxlen=_LOOKS_TO_LEARN)
        self._before: NDArray[np.uint8] | None = None
        self._looked_s: float | None = None
        self._candidate, self._candidate_s = PictureHealth.UNKNOWN, 0.0
        self._health, self._since_s = PictureHealth.UNKNOWN, 0.0

    @property
    def health(self) -> PictureHealth:
        """As told by the last look."""
        return self._health

    @property
    def since_s(self) -> float:
        """Since when it is so, Unix seconds of event time; 0 while unknown."""
        return self._since_s

    def is_due(self, at_s: float) -> bool:
        """Whether a frame of this event time, Unix seconds, would be looked at."""
        return self._looked_s is None or not 0 <= at_s - self._looked_s < self._period_s

    def look(self, luma: NDArray[np.uint8], at_s: float, band: str = "") -> PictureHealth:
        """Looks at a picture, if it is time.

        Args:
            luma: (H, W) uint8.
            at_s: Its event time, Unix seconds.
            band: What the sensor sees; each has references of its own.
        """
        if self.is_due(at_s):
            self._judge(self._raw_health(_measured(luma), band), at_s)
            self._looked_s = at_s
        return self._health

    def _raw_health(self, seen: _Measures, band: str) -> PictureHealth:
        """What this picture alone says; a good one is learned from."""
        is_still = self._is_still(seen)
        if self._given is not None:
            self._references[band, self._given.edges.shape] = [_Reference(self._given, _LOOKS_TO_LEARN)]
            self._given = None
        known = self._references.setdefault((band, seen.edges.shape), [])
        reference = min(known, key=lambda one: abs(one.light - seen.light), default=None)
        if reference is not None and abs(reference.light - seen.light) > _SAME_LIGHT:
            reference = None
        has_shown = any(one.is_learned and not one.is_empty for one in known)
        if _is_empty(seen.contrast) and has_shown and not (reference is not None and reference.is_empty):
            # Before the next: darkness without noise repeats as well.
            return PictureHealth.COVERED
        if is_still:
            return PictureHealth.FROZEN
        if reference is None:
            known.append(_Reference(seen))
            return PictureHealth.OK
        return self._compared(reference, seen)

    def _compared(self, reference: _Reference, seen: _Measures) -> PictureHealth:
        if reference.is_learned and reference.is_unsharp(seen):
            return PictureHealth.DEFOCUSED
        if reference.is_learned and reference.has_moved(seen):
            return PictureHealth.MOVED
        reference.learn(seen)
        return PictureHealth.OK

    def _is_still(self, seen: _Measures) -> bool:
        before, self._before = self._before, seen.raw
        if before is None or before.shape != seen.raw.shape:
            return False
        change = float(cv2.absdiff(before, seen.raw).mean())
        is_still = change <= _STILL
        usual = float(np.median(self._changes)) if self._changes else 0.0
        if not is_still or usual < _LIVELY:
            self._changes.append(change)
        return is_still and usual >= _LIVELY

    def _judge(self, raw: PictureHealth, at_s: float) -> None:
        is_gap = self._looked_s is not None and not 0 <= at_s - self._looked_s < self._persist_s
        if raw is not self._candidate or is_gap:
            self._candidate, self._candidate_s = raw, at_s
        is_first = self._health is PictureHealth.UNKNOWN and raw is PictureHealth.OK
        if raw is not self._health and (is_first or at_s - self._candidate_s >= self._persist_s):
            self._health, self._since_s = raw, self._candidate_s


def _measured(luma: NDArray[np.uint8]) -> _Measures:
    height = max(1, round(luma.shape[0] * _WIDTH / luma.shape[1]))
    # By pixels picked out, to at least twice the width: averaging all of them would cost several times as much.
    step = max(1, luma.shape[1] // (2 * _WIDTH))
    raw = np.ascontiguousarray(luma[::step, ::step])
    small = cv2.resize(raw, (_WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    # A blur takes the finest detail first, whatever light and contrast.
    energy = cv2.norm(across) ** 2 + cv2.norm(down) ** 2 + small.size
    sharpness = float(cv2.norm(cv2.Laplacian(small, cv2.CV_32F)) ** 2 / energy)
    gradient = cv2.GaussianBlur(cv2.magnitude(across, down), (0, 0), _SOFT)
    edges: Floats = (gradient / (cv2.blur(gradient, (51, 51)) + 4.0)).astype(np.float32, copy=False)
    return _Measures(float(small.mean()), _contrast(small), sharpness, edges, raw)


def _contrast(small: Floats) -> Floats:
    means = _by_cell(small)
    found: Floats = np.sqrt(np.maximum(_by_cell(small * small) - means * means, 0)).astype(np.float32, copy=False)
    return found


def _agreement(one: Floats, other: Floats) -> Floats:
    """(R, C) correlation of edges, by cell."""
    mean_one, mean_other = _by_cell(one), _by_cell(other)
    joint = _by_cell(one * other) - mean_one * mean_other
    spread = (_by_cell(one * one) - mean_one**2) * (_by_cell(other * other) - mean_other**2)
    found: Floats = (joint / np.sqrt(np.maximum(spread, 1e-6))).astype(np.float32, copy=False)
    return found


def _by_cell(picture: Floats) -> Floats:
    """Means of the cells."""
    return cv2.resize(picture, _CELLS[::-1], interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def _is_empty(contrast: Floats) -> bool:
    return float((contrast < _EMPTY_CONTRAST).mean()) >= _EMPTY_SHARE
