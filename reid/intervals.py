"""How far figures would move with other vehicles: bootstrap intervals over identities. Arrays alone, seeded.

A vehicle's queries are alike, hard ones together: to resample single queries would count them as so many
independent ones and promise intervals that are too narrow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over queries, and where 95 % of the resampled means lie."""

    low: float
    mean: float
    high: float


def resampled_means(
    values: NDArray[np.float64], identities: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Means over queries, each with as many vehicles drawn, with replacement, as there are.

    A vehicle that is drawn brings all of its queries.

    Args:
        values: (V,) one per query.
        identities: (V,) the queries' vehicles.
        draws: how many means.
        seed: of the draws.

    Returns:
        (draws,) float64.
    """
    names, members = np.unique(identities, return_inverse=True)
    sums, counts = np.bincount(members, values), np.bincount(members)
    vehicles = len(names)
    drawn = np.random.default_rng(seed).multinomial(vehicles, np.full(vehicles, 1 / vehicles), size=draws)
    means: NDArray[np.float64] = (drawn @ sums) / (drawn @ counts)
    return means


def bootstrap(
    values: NDArray[np.float64], identities: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Percentile interval of a mean over queries.

    Args:
        values: (V,) one per query, V at least 1: average precisions, or whether the first match ranks first.
        identities: (V,) the queries' vehicles.
        draws: resampled means.
        seed: the same one gives the same interval.

    Raises:
        ValueError: no query, or not one identity a query.
    """
    if len(values) != len(identities) or not len(values):
        raise ValueError(f"expected one identity a query and a query, got {len(identities)} for {len(values)}")
    low, high = np.quantile(resampled_means(values, identities, draws, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(values.mean()), float(high))


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    identities: NDArray[np.int64],
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Percentile interval of how much better `second` is than `first` on the same queries.

    Both rankings see the same drawn vehicles: what makes a vehicle hard for both cancels out, so the interval is
    narrower than those of the two figures suggest. Where it leaves 0 out, the difference is not these vehicles'.

    Args:
        first: (V,) one per query, V at least 1.
        second: (V,) of the same queries in the same order.
        identities: (V,) the queries' vehicles.
        draws: resampled differences.
        seed: the same one gives the same interval.

    Raises:
        ValueError: lengths disagree, or no query.
    """
    if len(first) != len(second):
        raise ValueError(f"expected the same queries, got {len(first)} and {len(second)}")
    return bootstrap(second - first, identities, draws, seed)
