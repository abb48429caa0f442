"""From vectors to evidence: centred by modality, their cosine similarity is a log-likelihood ratio per modality pair.

Vectors of one modality share a direction that says nothing of the vehicle. Taking it out lifts the link between
modalities more than anything else here: see `benchmarks/identity.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from reid.modality import Modality

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

ModalityPair = tuple[Modality, Modality]

#: A single similarity never says more than this, in nats: no calibration set has seen enough pairs to know better.
MAX_EVIDENCE = 6.0


class CalibrationError(Exception):
    """A calibration file can't be used; the text is one line that names it."""


def modality_pair(first: Modality, second: Modality) -> ModalityPair:
    """The pair in a fixed order, since evidence does not depend on who asked."""
    return (first, second) if first <= second else (second, first)


@dataclass(frozen=True, slots=True)
class Logistic:
    """log p(similarity | same) / p(similarity | different) = slope * similarity + intercept.

    Attributes:
        slope: Nats per unit of cosine similarity; positive for any embedding worth having.
        intercept: Nats at similarity 0.
        pairs: How many labelled pairs the fit has seen.
    """

    slope: float
    intercept: float
    pairs: int = 0

    def llr(self, similarity: float) -> float:
        """The log-likelihood ratio of a cosine similarity, in nats, within `MAX_EVIDENCE` either way."""
        return float(self.llrs(np.array(similarity)))

    def llrs(self, similarity: NDArray[np.floating]) -> NDArray[np.float64]:
        """Those of similarities of any shape."""
        return np.clip(self.slope * similarity.astype(np.float64) + self.intercept, -MAX_EVIDENCE, MAX_EVIDENCE)


#: What is assumed of an embedder that nobody has calibrated: sure only of the nearly identical.
UNKNOWN = Logistic(slope=12.0, intercept=-6.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of one embedder.

    Attributes:
        model_id: The embedder.
        fits: By pair in the order of `modality_pair`, for centred vectors.
        centres: Mean vector of each modality, (D,) float32; one that is missing is taken as zero.
    """

    model_id: str
    fits: Mapping[ModalityPair, Logistic]
    centres: Mapping[Modality, NDArray[np.float32]] = field(default_factory=dict)

    def knows(self, model_id: str, vector: NDArray[np.float32]) -> bool:
        """Whether a vector (D,) is that embedder's, by its name and its length."""
        return model_id == self.model_id and all(len(centre) == len(vector) for centre in self.centres.values())

    def of(self, first: Modality, second: Modality) -> Logistic:
        """The fit of a pair, or `UNKNOWN`."""
        return self.fits.get(modality_pair(first, second), UNKNOWN)

    def centred(self, modality: Modality, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A vector (D,) without what all of its modality share, unit norm again."""
        centre = self.centres.get(modality)
        if centre is None:
            return vector
        rest = vector - centre
        norm = float(np.linalg.norm(rest))
        return (rest / norm).astype(np.float32) if norm > 0 else vector


def fit_logistic(similarity: NDArray[np.float64], is_same: NDArray[np.bool_]) -> Logistic:
    """Fits a `Logistic` to labelled pairs, same and different weighing alike, as Platt (1999) does, with his targets.

    Args:
        similarity: (N,) cosine similarities.
        is_same: (N,) whether the two are one vehicle; both values must occur.

    Raises:
        ValueError: Only one of same and different occurs.
    """
    # Here, since programs that only read a calibration start half a second sooner without them.
    from scipy.optimize import minimize
    from scipy.special import expit

    same, different = int(is_same.sum()), int((~is_same).sum())
    if not same or not different:
        raise ValueError(f"calibration needs pairs of both kinds, got {same} same and {different} different")
    target = np.where(is_same, (same + 1) / (same + 2), 1 / (different + 2))
    weight = np.where(is_same, 0.5 / same, 0.5 / different)

    def loss(parameters: NDArray[np.float64]) -> float:
        logit = parameters[0] * similarity + parameters[1]
        return float(np.sum(weight * (np.logaddexp(0, logit) - target * logit)))

    def gradient(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        error = weight * (expit(parameters[0] * similarity + parameters[1]) - target)
        return np.array([np.sum(error * similarity), np.sum(error)])

    slope, intercept = minimize(loss, np.array([5.0, -2.5]), jac=gradient, method="BFGS").x
    return Logistic(float(slope), float(intercept), len(similarity))


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a calibration as JSON."""
    document = {
        "model_id": calibration.model_id,
        "fits": [{"pair": list(pair), **asdict(fit)} for pair, fit in sorted(calibration.fits.items())],
        "centres": {
            modality.value: [round(float(value), 5) for value in centre]
            for modality, centre in sorted(calibration.centres.items())
        },
    }
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def load_calibration(path: Path) -> Calibration:
    """Reads what `save_calibration` wrote.

    Raises:
        CalibrationError: The file is missing or says something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        fits = {_pair(row["pair"]): Logistic(row["slope"], row["intercept"], row["pairs"]) for row in document["fits"]}
        centres = {Modality(name): np.array(values, np.float32) for name, values in document["centres"].items()}
        return Calibration(document["model_id"], fits, centres)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"{path}: no calibration: {error}") from error


def _pair(names: list[str]) -> ModalityPair:
    first, second = (Modality(name) for name in names)
    return modality_pair(first, second)
