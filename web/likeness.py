"""What similarities mean, from the site's calibration, for the index of looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid.calibration import Calibration, CalibrationError, load_calibration, modality_pair
from reid.modality import Modality
from storage.likeness import LikenessIndex
from web.picture_search import PictureSearchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamer.config import SiteConfig

_MODALITIES = {modality.value: modality for modality in Modality}


def likeness_index(site: SiteConfig) -> LikenessIndex:
    """An index that ranks by the calibration which the site's matcher begins with.

    Raises:
        PictureSearchError: The file is missing or says something else.
    """
    try:
        calibration = load_calibration(Path(site.matcher.calibration))
    except CalibrationError as error:
        raise PictureSearchError(f"looks can't be compared: {error}") from error
    return LikenessIndex(CalibratedScale(calibration))


class CalibratedScale:
    """A `storage.likeness.Scale` by a calibration.

    Args:
        calibration: Of the embedder whose vectors are compared.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    @property
    def model_id(self) -> str:
        """The embedder."""
        return self._calibration.model_id

    def centred(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Scale`; a band whose centre isn't known stays as it is."""
        known = _MODALITIES.get(modality)
        centre = None if known is None else self._calibration.centres.get(known)
        return vectors if centre is None or len(centre) != vectors.shape[1] else vectors - centre

    def log_odds(self, first: str, second: str, similarities: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """See `Scale`; what the matcher assumes of a pair that nobody has measured is no measurement."""
        if first not in _MODALITIES or second not in _MODALITIES:
            return None
        fit = self._calibration.fits.get(modality_pair(_MODALITIES[first], _MODALITIES[second]))
        return None if fit is None else fit.llrs(similarities)
