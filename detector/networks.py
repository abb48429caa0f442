"""What `VehicleDetector` asks of a network, whichever runtime computes it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from detector.letterbox import Letterbox


#: What Ultralytics' loaders raise for a file that is not a model of the kind its name says.
LOADER_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    EOFError,
    AssertionError,
    pickle.UnpicklingError,
)


class DetectorError(Exception):
    """A detector that cannot be had: the message is one line that names the file."""


class Network(Protocol):
    """A detection network of one input size."""

    @property
    def names(self) -> dict[int, str]:
        """Class number in the network's output -> the name it was trained with."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every picture it takes."""

    def run(self, images: Sequence[NDArray[np.uint8]], places: Sequence[Letterbox]) -> Iterator[NDArray[np.float32]]:
        """Run over pictures, each drawn to its place in the network's rectangle.

        Args:
            images: (h, w, 3) RGB uint8 each, of any sizes.
            places: One for each picture.

        Yields:
            The raw output of each picture, in order: (4 + classes, candidates) with centre, size and class scores;
            or (candidates, 6) xyxy, score, class from a network that needs no suppression. Both in pixels of
            the rectangle. It may be overwritten when the next one is asked for.
        """
