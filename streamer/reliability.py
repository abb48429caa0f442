"""Whether what is said to be likely turns out so: predicted probabilities against the observed share, bin by bin.

The reliability diagram (DeGroot and Fienberg, 1983) and the expected calibration error (Naeini, Cooper and Hauskrecht,
AAAI 2015). Arrays in, figures out; `table` and `draw` show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Bins of the probability, of one width.
_BINS = 10
#: Characters of a bar.
_WIDTH = 30


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Of B bins that hold anything, in the order of their probability.

    Attributes:
        predicted: (B,) mean probability that was said.
        observed: (B,) share that was right.
        share: (B,) weight of the bin, summing to 1.
        same: (B,) how many of one vehicle there were.
        different: (B,) how many of two.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    share: NDArray[np.float64]
    same: NDArray[np.int64]
    different: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: by how much a probability misses on average."""
        return float(np.sum(self.share * np.abs(self.predicted - self.observed)))

    @property
    def excess(self) -> float:
        """By how much more was said on average than was right: above 0 boasts."""
        return float(np.sum(self.share * (self.predicted - self.observed)))


def reliability(log_odds: NDArray[np.float64], is_same: NDArray[np.bool_], *, evenly: bool) -> Reliability:
    """Compares what was said with what is.

    Args:
        log_odds: (N,) that two are one vehicle, in nats; of likelihood ratios, those at a prior of 50:50.
        is_same: (N,) whether they are.
        evenly: Whether same and different weigh alike however many there are, as that prior has them.
    """
    probability = expit(np.asarray(log_odds, np.float64))
    weight = np.ones(len(is_same))
    if evenly:
        same, different = max(int(is_same.sum()), 1), max(int((~is_same).sum()), 1)
        weight = np.where(is_same, 0.5 / same, 0.5 / different)
    at = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    sums = [np.bincount(at, weights, _BINS) for weights in (weight, weight * probability, weight * is_same)]
    counts = [np.bincount(at[chosen], minlength=_BINS) for chosen in (is_same, ~is_same)]
    held = sums[0] > 0
    total, predicted, observed = (found[held] for found in sums)
    same_count, different_count = (found[held] for found in counts)
    return Reliability(predicted / total, observed / total, total / total.sum(), same_count, different_count)


def table(title: str, found: Reliability) -> Table:
    """The diagram in characters: a bar as long as the observed share, with a stroke where it should end."""
    shown = Table("said", "is so", "", "same", "different", title=f"{title}: error {found.error:.3f}")
    for row in range(len(found.share)):
        bar = ["█" if column < round(_WIDTH * found.observed[row]) else "·" for column in range(_WIDTH)]
        bar[min(round(_WIDTH * found.predicted[row]), _WIDTH - 1)] = "│"
        shown.add_row(
            f"{found.predicted[row]:.3f}",
            f"{found.observed[row]:.3f}",
            "".join(bar),
            str(found.same[row]),
            str(found.different[row]),
        )
    return shown


def draw(path: Path, found: Mapping[str, Reliability]) -> None:
    """Writes the diagrams side by side as a PNG; the area of a point is the weight of its bin.

    Raises:
        OSError: The file can't be written.
    """
    from matplotlib.figure import Figure

    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout="constrained")
    for number, (title, one) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.plot([0, 1], [0, 1], color="#8b929b", linewidth=1)
        axes.plot(one.predicted, one.observed, color="#0072b2", linewidth=1)
        axes.scatter(one.predicted, one.observed, s=15 + 300 * one.share, color="#0072b2", alpha=0.6)
        axes.set(title=f"{title}\nerror {one.error:.3f}", xlabel="said", ylabel="is so", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal")
    figure.savefig(path, dpi=150)
