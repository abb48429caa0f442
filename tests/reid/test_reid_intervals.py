"""Laws of the bootstrap over identities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.intervals import bootstrap, paired_difference, resampled_means


def clustered(vehicles: int = 30, queries: int = 12) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values whose queries differ little within a vehicle, and the vehicles."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.uniform(0, 1, vehicles), queries) + rng.normal(0, 0.01, vehicles * queries)
    return values, np.repeat(np.arange(vehicles), queries)


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_contains_the_figure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = bootstrap(rng.uniform(0, 1, 200), rng.integers(0, 25, 200), seed=seed)
    assert 0 <= found.low < found.mean < found.high <= 1


def test_an_interval_over_vehicles_is_wider_than_over_their_queries() -> None:
    values, vehicles = clustered()
    by_vehicle, by_query = bootstrap(values, vehicles), bootstrap(values, np.arange(len(values)))
    assert by_vehicle.mean == by_query.mean
    assert by_vehicle.high - by_vehicle.low > 2 * (by_query.high - by_query.low)


def test_resampled_means_spread_as_theory_says() -> None:
    # With equal clusters the standard error is that of the vehicles' own means.
    values, vehicles = clustered()
    of_vehicles = values.reshape(30, 12).mean(axis=1)
    expected = of_vehicles.std() / np.sqrt(30)
    assert resampled_means(values, vehicles, 5000).std() == pytest.approx(expected, rel=0.05)


def test_a_vehicle_brings_all_of_its_queries() -> None:
    # Of two vehicles only four draws exist: means 0, 3/4 (twice), and 1.
    means = resampled_means(np.array([0.0, 1.0, 1.0, 1.0]), np.array([5, 9, 9, 9]), 400)
    assert set(means.tolist()) == {0.0, 0.75, 1.0}
    assert np.mean(means == 0.75) == pytest.approx(0.5, abs=0.1)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, vehicles = clustered()
    assert bootstrap(values, vehicles, seed=3) == bootstrap(values, vehicles, seed=3)
    assert bootstrap(values, vehicles, seed=3) != bootstrap(values, vehicles, seed=4)


def test_one_vehicle_has_no_spread() -> None:
    assert bootstrap(np.array([0.0, 1.0]), np.array([4, 4])) == (0.5, 0.5, 0.5)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    # A small gain on every vehicle: lost in the spread of vehicles, plain once they are compared with themselves.
    values, vehicles = clustered()
    first, second = bootstrap(values, vehicles), bootstrap(values + 0.02, vehicles)
    assert first.high > second.low
    low, mean, high = paired_difference(values, values + 0.02, vehicles)
    assert (low, mean, high) == pytest.approx((0.02, 0.02, 0.02))


def test_a_difference_changes_its_sign_with_the_order() -> None:
    values, vehicles = clustered()
    other = np.random.default_rng(7).uniform(0, 1, len(values))
    there, back = paired_difference(values, other, vehicles), paired_difference(other, values, vehicles)
    assert there == pytest.approx((-back.high, -back.mean, -back.low))


def test_lengths_that_disagree_and_no_query_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        paired_difference(np.zeros(2), np.zeros(3), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="got 1 for 2"):
        bootstrap(np.zeros(2), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="a query"):
        bootstrap(np.zeros(0), np.zeros(0, np.int64))
