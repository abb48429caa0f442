"""What camera workers and the embedding worker say to each other over their socket: questions, answers and a hello.

Plain bytes behind a fixed header: nothing is unpickled, so a peer can't make the other run code.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from reid.embedder import EmbedderInfo
from reid.modality import Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Id, modality, whether tokens are wanted, height, width; and id, bytes of the vector, bytes of the tokens.
_QUESTION = struct.Struct("<QB?HH")
_ANSWER = struct.Struct("<QII")
_MODALITIES = tuple(Modality)


class WireError(Exception):
    """Bytes that are no message of this protocol."""


def limit_wait(plain: socket.socket, option: int, timeout_s: float) -> None:
    """From now on no write (`SO_SNDTIMEO`) or read (`SO_RCVTIMEO`) on the socket waits longer: it fails then.

    The limit is the socket's own, and holds for every handle on it; the library's connections know none.
    """
    whole_s = math.floor(timeout_s)
    limit = struct.pack("ll", whole_s, max(1, int((timeout_s - whole_s) * 1e6)))
    plain.setsockopt(socket.SOL_SOCKET, option, limit)


@dataclass(frozen=True, slots=True)
class CropQuestion:
    """A crop as the embedder wants it.

    Attributes:
        id: Chosen by the asker; the answer brings it back.
        crop: (H, W, 3) uint8 RGB of the size in the hello.
        modality: The band of the crop.
        wants_tokens: Whether the points that a matcher compares should come with the vector.
    """

    id: int
    crop: NDArray[np.uint8]
    modality: Modality
    wants_tokens: bool = False

    def encode(self) -> bytes:
        """As bytes."""
        height, width = self.crop.shape[:2]
        modality = _MODALITIES.index(self.modality)
        return _QUESTION.pack(self.id, modality, self.wants_tokens, height, width) + self.crop.tobytes()

    @classmethod
    def decode(cls, data: bytes) -> CropQuestion:
        """From bytes.

        Raises:
            WireError: The length or the modality is wrong.
        """
        if len(data) < _QUESTION.size:
            raise WireError(f"question: {len(data)} bytes, wanted at least {_QUESTION.size}")
        number, modality, wants_tokens, height, width = _QUESTION.unpack_from(data)
        if len(data) != _QUESTION.size + height * width * 3 or modality >= len(_MODALITIES):
            raise WireError(f"question: {len(data)} bytes, wanted a crop of {height} x {width} and a known modality")
        crop = np.frombuffer(data, np.uint8, offset=_QUESTION.size).reshape(height, width, 3)
        return cls(number, crop, _MODALITIES[modality], wants_tokens)


@dataclass(frozen=True, slots=True)
class CropAnswer:
    """What became of a question.

    Attributes:
        id: The question's.
        vector: (D,) float32, unit norm; None when the crop could not be embedded.
        tokens: What `reid.tokens.pack` wrote; None where they were not wanted, or the network makes none.
    """

    id: int
    vector: NDArray[np.float32] | None
    tokens: bytes | None = None

    def encode(self) -> bytes:
        """As bytes."""
        values = b"" if self.vector is None else self.vector.astype("<f4").tobytes()
        tokens = self.tokens or b""
        return _ANSWER.pack(self.id, len(values), len(tokens)) + values + tokens

    @classmethod
    def decode(cls, data: bytes) -> CropAnswer:
        """From bytes.

        Raises:
            WireError: The length is wrong.
        """
        if len(data) < _ANSWER.size:
            raise WireError(f"answer: {len(data)} bytes, wanted at least {_ANSWER.size}")
        number, size, token_bytes = _ANSWER.unpack_from(data)
        end = _ANSWER.size + size
        if len(data) != end + token_bytes or size % 4:
            raise WireError(f"answer: {len(data)} bytes, wanted {end + token_bytes}, the vector's a multiple of 4")
        vector = np.frombuffer(data, "<f4", size // 4, _ANSWER.size).astype(np.float32)
        return cls(number, vector if size else None, data[end:] or None)


def encode_hello(info: EmbedderInfo) -> bytes:
    """The worker's first words on each connection."""
    return json.dumps(asdict(info)).encode()


def decode_hello(data: bytes) -> EmbedderInfo:
    """What the worker said first.

    Raises:
        WireError: It was something else.
    """
    try:
        return EmbedderInfo(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise WireError(f"hello: {error}") from error
