"""What every message written in Avro shares: how its schemas are found, and what reading one may raise."""

from __future__ import annotations

import json
import struct
from functools import cache
from importlib.resources import files
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError

#: What fastavro raises for bytes that are no record of the schema, or of one that ours can't stand for; its compiled
#: reader documents none of it.
UNREADABLE = (
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    SchemaResolutionError,
)


@cache
def parsed_schema(file: str) -> Any:  # noqa: ANN401 - fastavro's parsed form
    """The schema in one of this package's `.avsc` files."""
    return fastavro.parse_schema(json.loads(files("streamer").joinpath(file).read_text(encoding="utf-8")))
