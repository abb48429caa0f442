"""From an uploaded picture to vehicles that look like it: the embedder, loaded when the first picture comes."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from storage.errors import StorageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reid.embedder import Embedder
    from reid.modality import Modality
    from streamer.config import SiteConfig


class PictureSearchError(StorageError):
    """Looks can't be described or compared here: the site's weights or calibration are missing, or can't be used."""


class PictureSearch:
    """Describes pictures as the site's own crops are described. Safe for several threads, one after the other.

    Nothing is loaded before the first picture: a program that is never asked needs no network.

    Args:
        site: Its `embedder` says which weights, and where they are run.
    """

    def __init__(self, site: SiteConfig) -> None:
        self._settings = site.embedder
        self._embedder: Embedder | None = None
        self._lock = Lock()

    def describe(self, image: NDArray[np.uint8], modality: Modality) -> tuple[NDArray[np.float32], str]:
        """A picture's vector, and the embedder that it can be compared within. The first takes some seconds.

        Args:
            image: (h, w, 3) uint8 RGB: one vehicle, cut out.
            modality: The band that it was taken in.

        Returns:
            (D,) float32 of unit norm, and the model's id.

        Raises:
            PictureSearchError: The weights can't be loaded or run.
        """
        from reid.backend import EmbedderError

        with self._lock:
            try:
                if self._embedder is None:
                    self._embedder = self._loaded()
                vector = self._embedder.embed([image], [modality])[0]
            # What the libraries raise of their own: RuntimeError of a device, ImportError where one isn't installed.
            except (EmbedderError, RuntimeError, ImportError, OSError) as error:
                raise PictureSearchError(f"pictures can't be described: {' '.join(str(error).split())}") from error
            return vector, self._embedder.info.model_id

    def _loaded(self) -> Embedder:
        from reid.embedder import Embedder

        settings = self._settings
        return Embedder(settings.weights, device=settings.device, max_batch=1, threads=1, mirrored=settings.mirrored)
