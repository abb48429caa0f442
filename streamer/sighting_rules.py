"""What a message must obey, checked on both ends of the bus: before it is sent and after it was read."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np

from streamer.path_codec import EARLIEST_US, LATEST_US, MAX_PIXEL
from streamer.sightings import (
    MAX_CROP_BYTES,
    MAX_TOKEN_BYTES,
    SCHEMA_VERSION,
    CropEmbedding,
    Heartbeat,
    Message,
    Sighting,
    SightingError,
    SightingKind,
)

MAX_DIMENSIONS = 4096
#: float16 moves the norm of a unit vector by less than 1/2000; a vector that is off by more was never normalised.
NORM_TOLERANCE = 0.01
#: As wide as the database's columns: PostgreSQL refuses what is longer, and with it the matcher's whole transaction.
MAX_ID_LENGTH = 64
MAX_CLASS_LENGTH = 32
MAX_MODEL_LENGTH = 128
MAX_IMAGE_LENGTH = 256
MAX_CLASSES = 64

_EARLIEST = datetime.fromtimestamp(EARLIEST_US / 1e6, UTC)
_LATEST = datetime.fromtimestamp(LATEST_US / 1e6, UTC)
_MAX_INT = 2**31 - 1
#: No slash, since ids are joined by slashes into a tracklet's id; no blanks or control characters.
_IDENTIFIER = re.compile(rf"[^\s/\x00-\x1f\x7f]{{1,{MAX_ID_LENGTH}}}")
_IDENTIFIER_WANTED = f"1-{MAX_ID_LENGTH} characters, no blank or slash"
#: PostgreSQL keeps no NUL.
_TEXT = re.compile(r"[^\x00-\x1f\x7f]+")


def check(message: Message) -> None:
    """Whether a message obeys the contract of `streamer.sightings` (its path is `streamer.path_codec`'s to check).

    Raises:
        SightingError: It does not; one line says which field, what is wanted and what was found.
    """
    _require(message.schema_version == SCHEMA_VERSION, "schema_version", SCHEMA_VERSION, message.schema_version)
    for name in ("site", "region", "camera", "session"):
        value = getattr(message, name)
        _require(
            _IDENTIFIER.fullmatch(value) is not None, name, f"1-{MAX_ID_LENGTH} characters, no blank or slash", value
        )
    if isinstance(message, Heartbeat):
        _check_time("watermark", message.watermark)
    else:
        _check_sighting(message)


def _require(holds: bool, field: str, wanted: object, found: object) -> None:
    if not holds:
        raise SightingError(f"{field}: wanted {wanted}, got {repr(found)[:80]}")


def _check_time(field: str, moment: datetime) -> None:
    _require(moment.utcoffset() is not None, field, "a time with its zone", moment)
    _require(_EARLIEST <= moment < _LATEST, field, "a time between 2000 and 2100", moment)


def _check_sighting(sighting: Sighting) -> None:
    _require(0 <= sighting.number <= _MAX_INT, "number", f"0-{_MAX_INT}", sighting.number)
    _require(0 <= sighting.sequence <= _MAX_INT, "sequence", f"0-{_MAX_INT}", sighting.sequence)
    _check_time("started_at", sighting.started_at)
    _check_time("occurred_at", sighting.occurred_at)
    _check_name("vehicle_class", sighting.vehicle_class, MAX_CLASS_LENGTH)
    _check_votes(sighting.class_votes)
    is_end = sighting.kind is SightingKind.END
    _require((sighting.end_reason is not None) == is_end, "end_reason", "one for end alone", sighting.end_reason)
    _check_embeddings(sighting)
    if sighting.context_image is not None:
        _check_context_image(sighting.context_image)


def _check_name(field: str, value: str, longest: int) -> None:
    is_text = _TEXT.fullmatch(value) is not None and len(value) <= longest
    _require(is_text, field, f"1-{longest} characters of text", value)


def _check_votes(votes: dict[str, float]) -> None:
    shares = votes.values()
    _require(len(votes) <= MAX_CLASSES, "class_votes", f"at most {MAX_CLASSES} classes", len(votes))
    for name in votes:
        _check_name("class_votes", name, MAX_CLASS_LENGTH)
    in_range = all(math.isfinite(share) and share >= 0 for share in shares)
    _require(in_range and abs(sum(shares) - 1) < 0.01, "class_votes", "shares that sum to 1", votes)


def _check_embeddings(sighting: Sighting) -> None:
    embeddings = sighting.embeddings
    bands = {embedding.modality for embedding in embeddings}
    _require(len(bands) == len(embeddings), "embeddings", "one per modality", len(embeddings))
    at_most_one = sighting.kind is not SightingKind.END
    _require(len(embeddings) <= 1 or not at_most_one, "embeddings", "at most one before the end", len(embeddings))
    if embeddings:
        _require(sighting.model_id != "", "model_id", "one beside an embedding", sighting.model_id)
    if sighting.model_id:
        _check_name("model_id", sighting.model_id, MAX_MODEL_LENGTH)
    for embedding in embeddings:
        _check_embedding(embedding)


def _check_embedding(embedding: CropEmbedding) -> None:
    vector = embedding.vector
    sized = vector.ndim == 1 and 0 < len(vector) <= MAX_DIMENSIONS
    _require(sized, "vector", f"(D,) with D of 1-{MAX_DIMENSIONS}", vector.shape)
    # NaN and infinity fail the comparison too; errstate keeps numpy from warning of what is refused anyway.
    with np.errstate(all="ignore"):
        norm = math.sqrt(abs(float(np.dot(vector, vector))))
    _require(abs(norm - 1) <= NORM_TOLERANCE, "vector", "unit norm", norm)
    _require(0 <= embedding.quality <= 1, "quality", "0-1", embedding.quality)
    _check_time("captured_at", embedding.captured_at)
    _require(all(abs(value) <= MAX_PIXEL for value in embedding.box), "box", "finite pixels", embedding.box)
    _check_size("crop_jpeg", embedding.crop_jpeg, MAX_CROP_BYTES)
    _check_size("tokens", embedding.tokens, MAX_TOKEN_BYTES)


def _check_size(field: str, blob: bytes | None, limit: int) -> None:
    size = 0 if blob is None else len(blob)
    _require(size <= limit, field, f"at most {limit} bytes", size)


def _check_context_image(name: str) -> None:
    """A message must not make a reader open a file outside `crops_dir`."""
    path = PurePosixPath(name)
    below = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    is_text = _TEXT.fullmatch(name) is not None and len(name) <= MAX_IMAGE_LENGTH
    _require(below and is_text, "context_image", "a path below crops_dir", name)
