"""Messages as bytes: one version byte, then one Avro record of the union in `sighting.avsc`.

The version byte names the schema that wrote the message. A program reads every version whose schema it has a file of:
what that writer didn't know yet takes its default, what it knew beyond ours is left out. So a new version leaves the
old file where it is, under `_SCHEMA_FILES`, and adds fields with defaults alone. A version without a file is refused by
its number: update the matcher before the edge.
"""

from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np

from reid.modality import Modality
from streamer import sighting_rules
from streamer.avro_schemas import UNREADABLE, parsed_schema
from streamer.path_codec import decode_path, encode_path
from streamer.sightings import (
    SCHEMA_VERSION,
    CameraState,
    CropEmbedding,
    EndReason,
    Heartbeat,
    Message,
    Sighting,
    SightingError,
    SightingKind,
)

#: Three crops with tokens, the longest path and the names stay below a quarter of a megabyte.
MAX_MESSAGE_BYTES = 256 * 1024

_WIRE_FLOAT = np.dtype("<f2")
#: The schema that wrote each version.
_SCHEMA_FILES = {SCHEMA_VERSION: "sighting.avsc"}


def encode(message: Message) -> bytes:
    """The message as it goes on the wire.

    Raises:
        SightingError: The message breaks the contract; one line names the field. Nothing `encode` returns is refused
            by `decode`.
    """
    sighting_rules.check(message)
    named_record = _heartbeat_record(message) if isinstance(message, Heartbeat) else _sighting_record(message)
    buffer = io.BytesIO()
    buffer.write(bytes((SCHEMA_VERSION,)))
    try:
        fastavro.schemaless_writer(buffer, _schema(SCHEMA_VERSION), named_record)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise SightingError(f"{type(message).__name__}: can't be written: {_one_line(error)}") from error
    payload = buffer.getvalue()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise SightingError(f"message: {len(payload)} bytes, at most {MAX_MESSAGE_BYTES}")
    return payload


def decode(payload: bytes) -> Message:
    """The message in bytes from the wire, checked: whatever this returns obeys the contract.

    Vectors come back as float32, normalised anew, so that float16's rounding does not shift similarities.

    Raises:
        SightingError: The bytes can't be read or the message breaks the contract; one line says why.
    """
    name, record = _read_record(payload)
    try:
        message: Message = _heartbeat(record) if name == "streamer.Heartbeat" else _sighting(record)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise SightingError(f"{name}: {_one_line(error)}") from error
    sighting_rules.check(message)
    return message


def _schema(version: int) -> Any:  # noqa: ANN401 - fastavro's parsed form
    return parsed_schema(_SCHEMA_FILES[version])


def _reader(version: int) -> Any:  # noqa: ANN401 - fastavro's parsed form
    """What to resolve a record of that version with; nothing where it is ours, which takes half the time."""
    return None if version == SCHEMA_VERSION else _schema(SCHEMA_VERSION)


def _read_record(payload: bytes) -> tuple[str, dict[str, Any]]:
    if not payload:
        raise SightingError("message: empty")
    if len(payload) > MAX_MESSAGE_BYTES:
        raise SightingError(f"message: {len(payload)} bytes, at most {MAX_MESSAGE_BYTES}")
    version = payload[0]
    if version not in _SCHEMA_FILES:
        known = ", ".join(str(one) for one in sorted(_SCHEMA_FILES))
        raise SightingError(f"message: unknown version {version}, this program reads {known}")
    buffer = io.BytesIO(payload)
    buffer.seek(1)
    try:
        name, record = fastavro.schemaless_reader(buffer, _schema(version), _reader(version), return_record_name=True)
    except UNREADABLE as error:
        raise SightingError(f"message: not a record of version {version}: {_one_line(error)}") from error
    if buffer.tell() != len(payload):
        raise SightingError(f"message: {len(payload) - buffer.tell()} bytes too many")
    if record["schema_version"] != version:
        raise SightingError(f"schema_version: wanted {version}, as the first byte, got {record['schema_version']}")
    # Resolved by now: what came of an older or newer writer is a record of ours.
    return name, record | {"schema_version": SCHEMA_VERSION}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _heartbeat_record(heartbeat: Heartbeat) -> tuple[str, dict[str, Any]]:
    return "streamer.Heartbeat", {
        "schema_version": heartbeat.schema_version,
        "site": heartbeat.site,
        "region": heartbeat.region,
        "camera": heartbeat.camera,
        "session": heartbeat.session,
        "watermark": heartbeat.watermark,
        "state": heartbeat.state.value,
    }


def _sighting_record(sighting: Sighting) -> tuple[str, dict[str, Any]]:
    return "streamer.Sighting", {
        "schema_version": sighting.schema_version,
        "kind": sighting.kind.value,
        "site": sighting.site,
        "region": sighting.region,
        "camera": sighting.camera,
        "session": sighting.session,
        "number": sighting.number,
        "sequence": sighting.sequence,
        "started_at": sighting.started_at,
        "occurred_at": sighting.occurred_at,
        "vehicle_class": sighting.vehicle_class,
        "class_votes": sighting.class_votes,
        "path": encode_path(sighting.path),
        "embeddings": [_embedding_record(embedding) for embedding in sighting.embeddings],
        "model_id": sighting.model_id,
        "context_image": sighting.context_image,
        "end_reason": None if sighting.end_reason is None else sighting.end_reason.value,
    }


def _embedding_record(embedding: CropEmbedding) -> dict[str, Any]:
    x1, y1, x2, y2 = embedding.box
    return {
        "modality": embedding.modality.value,
        "vector": embedding.vector.astype(_WIRE_FLOAT).tobytes(),
        "quality": float(embedding.quality),
        "captured_at": embedding.captured_at,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "crop_jpeg": embedding.crop_jpeg,
        "tokens": embedding.tokens,
    }


def _heartbeat(record: dict[str, Any]) -> Heartbeat:
    return Heartbeat(**{**record, "state": CameraState(record["state"])})


def _sighting(record: dict[str, Any]) -> Sighting:
    end_reason = record["end_reason"]
    converted = {
        "kind": SightingKind(record["kind"]),
        "path": decode_path(record["path"]),
        "embeddings": tuple(_embedding(embedding) for embedding in record["embeddings"]),
        "end_reason": None if end_reason is None else EndReason(end_reason),
    }
    return Sighting(**{**record, **converted})


def _embedding(record: dict[str, Any]) -> CropEmbedding:
    with np.errstate(all="ignore"):
        vector = np.frombuffer(record["vector"], _WIRE_FLOAT).astype(np.float32)
        norm = np.sqrt(np.dot(vector, vector))
    # Only what rounding did is undone here: a vector that never had unit norm is left for the rules to refuse.
    if abs(norm - 1) <= sighting_rules.NORM_TOLERANCE:
        vector /= norm
    return CropEmbedding(
        modality=Modality(record["modality"]),
        vector=vector,
        quality=record["quality"],
        captured_at=record["captured_at"],
        box=(record["x1"], record["y1"], record["x2"], record["y2"]),
        crop_jpeg=record["crop_jpeg"],
        tokens=record["tokens"],
    )
