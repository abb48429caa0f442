"""How vehicles pass from one view to another: learned from tracklets that look alike, without any map.

Per ordered pair of cameras it is a weighted kernel estimate over three things at once: the seconds from leaving one
view to entering the other, where the one was left, and where the other was entered. The places tell apart the ways
that vehicles come and go, so that a time that is common on one way is no evidence on another.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamer.matcher.tracklet import Tracklet

#: Spread of the times of vehicles that go the same way: so many seconds, and this share of the time itself.
_TIME_SPREAD_S, _TIME_SPREAD_SHARE = 0.6, 0.2
#: Spread of the places where vehicles of one way enter or leave, as a share of that of all ways.
_PLACE_SPREAD = 0.5
#: Half of the passages of which nothing is known yet take less than this.
_UNKNOWN_S = 15.0
#: What was learned is taken with so many vehicles' worth of doubt, of which this share was expected to pass.
_DOUBT, _EXPECTED_SHARE = 4.0, 0.25
#: Share of the vehicles that take unusually long, or unusual ways.
_UNUSUAL_SHARE = 0.1
#: Kernels kept per ordered pair of cameras, and how sure each must be.
_MAX_KERNELS, _MIN_WEIGHT = 64, 0.2
#: Pixels; places closer than this are one.
_MIN_SCALE = 20.0


@dataclass(frozen=True, eq=False)
class ViewTraffic:
    """What a camera has seen of late.

    Attributes:
        entries: (N, 2) where vehicles were first seen, pixels.
        exits: (N, 2) where they were last seen.
        rate_hz: Vehicles a second.
        stay_s: Mean seconds in view.
    """

    entries: NDArray[np.float64]
    exits: NDArray[np.float64]
    rate_hz: float
    stay_s: float

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """(2,) spread of the places, pixels."""
        spread = np.concatenate([self.entries, self.exits]).std(axis=0)
        return np.asarray(np.maximum(spread * _PLACE_SPREAD, _MIN_SCALE))

    def nearness(self, places: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, K): 1 where places (M, 2) and (K, 2) are the same, falling towards 0 as they part."""
        x, y = ((places[:, axis, np.newaxis] - known[:, axis]) / self.scale[axis] for axis in (0, 1))
        return np.asarray(np.exp(-0.5 * (x * x + y * y)))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "entries": self.entries.tolist(),
            "exits": self.exits.tolist(),
            "rate_hz": self.rate_hz,
            "stay_s": self.stay_s,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ViewTraffic:
        """What `to_json` wrote."""
        return cls(np.array(values["entries"]), np.array(values["exits"]), values["rate_hz"], values["stay_s"])

    def exit_share(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) share of all vehicles that leave near each of the places (M, 2)."""
        return np.asarray((self.nearness(places, self.exits).sum(axis=1) + 0.5) / (len(self.exits) + 1.0))

    def entry_share(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) share of all vehicles that enter near each of the places (M, 2)."""
        return np.asarray((self.nearness(places, self.entries).sum(axis=1) + 0.5) / (len(self.entries) + 1.0))


def view_traffic(tracklets: Sequence[Tracklet]) -> ViewTraffic:
    """What a camera has seen, from its tracklets with paths; one at least."""
    begin, end = min(t.started_at for t in tracklets), max(t.ended_at for t in tracklets)
    return ViewTraffic(
        np.array([tracklet.entry for tracklet in tracklets]),
        np.array([tracklet.exit for tracklet in tracklets]),
        (len(tracklets) + 1) / (end - begin + 10.0),
        float(np.mean([t.ended_at - t.started_at for t in tracklets])),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """Passages from one camera to another.

    Attributes:
        gap_s: (N,) seconds from leaving the one view to entering the other; negative while both showed the vehicle.
        left_at: (N, 2) where the one was left, pixels.
        entered_at: (N, 2) where the other was entered, pixels.
        weights: (N,) how sure it is that this was one vehicle, 0-1.
    """

    gap_s: NDArray[np.float64]
    left_at: NDArray[np.float64]
    entered_at: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.gap_s)

    @classmethod
    def of(cls, pairs: Sequence[tuple[Tracklet, Tracklet]]) -> Passages:
        """Those of tracklets with paths, the one that is left before the one that is entered."""
        return cls(
            np.array([second.started_at - first.ended_at for first, second in pairs]),
            np.array([first.exit for first, _ in pairs]).reshape(-1, 2),
            np.array([second.entry for _, second in pairs]).reshape(-1, 2),
            np.ones(len(pairs)),
        )

    def chosen(self, indices: Sequence[int] | NDArray[np.int64]) -> Passages:
        """Some of them."""
        return Passages(*(getattr(self, column.name)[indices] for column in fields(self)))

    def surest(self, weights: NDArray[np.float64]) -> Passages:
        """The surest of them by weights (N,), as what is learned."""
        chosen = np.argsort(-weights, kind="stable")[:_MAX_KERNELS]
        chosen = np.sort(chosen[weights[chosen] >= _MIN_WEIGHT])
        return replace(self, weights=weights).chosen(chosen)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Passages:
        """What `to_json` wrote."""
        return cls(
            np.array(values["gap_s"]),
            np.array(values["left_at"]).reshape(-1, 2),
            np.array(values["entered_at"]).reshape(-1, 2),
            np.array(values["weights"]),
        )


def passage_log_odds(
    asked: Passages,
    chance: NDArray[np.float64],
    learned: Passages,
    left: ViewTraffic,
    entered: ViewTraffic,
    *,
    unknown: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How likely each pair is one vehicle rather than two, from when and where it was seen alone.

    Of the vehicles that the one camera sees a share goes on to the other, at a density over time and places that is
    learned; against it stand all the vehicles that turn up there anyway.

    Args:
        asked: M possible passages; their weights are not read.
        chance: (M,) share of all that leave where it left, times that of all that enter where it entered.
        learned: What is known of the way, N passages.
        left: The camera that is left.
        entered: The one that is entered.
        unknown: (M,) density per second that is assumed of passages of which nothing is known.

    Returns:
        (M,) log-odds in nats.
    """
    density = _DOUBT * _EXPECTED_SHARE * unknown
    if len(learned):
        spread = _TIME_SPREAD_S + _TIME_SPREAD_SHARE * np.abs(learned.gap_s)
        gap = (asked.gap_s[:, np.newaxis] - learned.gap_s) / spread
        exits = left.nearness(asked.left_at, learned.left_at)
        entries = entered.nearness(asked.entered_at, learned.entered_at)
        kernels = np.exp(-0.5 * gap**2) / (spread * np.sqrt(2 * np.pi)) * exits * entries
        # What was learned from a pair is no evidence for that pair itself.
        kernels[(gap == 0) & (exits == 1) & (entries == 1)] = 0.0
        density = density + kernels @ learned.weights / chance + _UNUSUAL_SHARE * learned.weights.sum() * unknown
    seen = min(len(left.exits), len(entered.entries))
    rate = max(left.rate_hz, entered.rate_hz)
    return np.asarray(np.log(density / ((seen + _DOUBT) * rate)))


def unknown_density(gap_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) density per second of a passage of which nothing is known: likely soon, possible late."""
    return 0.5 / _UNKNOWN_S / (1 + np.abs(gap_s) / _UNKNOWN_S) ** 2
