"""Laws of the wire format: what is encoded comes back, and nothing else gets through."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid.modality import Modality
from streamer import sighting_codec
from streamer.avro_schemas import parsed_schema
from streamer.path_codec import BOX_STEPS, POINTS_THAT_ALWAYS_FIT, decode_path, encode_path
from streamer.sighting_codec import MAX_MESSAGE_BYTES, decode, encode
from streamer.sightings import (
    MAX_CROP_BYTES,
    MAX_PATH_BYTES,
    MAX_TOKEN_BYTES,
    SCHEMA_VERSION,
    CameraState,
    CropEmbedding,
    EndReason,
    Heartbeat,
    Message,
    Sighting,
    SightingError,
    SightingKind,
    TrackPath,
)
from tests.drills.figures import size

NOON = datetime(2026, 1, 1, 12, 0, 0, 123457, tzinfo=UTC)


def path_of(count: int, seed: int = 0) -> TrackPath:
    generator = np.random.default_rng(seed)
    frames = np.cumsum(generator.integers(1, 4, count))
    times = NOON.timestamp() + np.round(frames / 25 + generator.normal(0, 0.002, count), 6)
    boxes = generator.uniform(0, 1920, (count, 4)).astype(np.float32)
    return TrackPath(frames=frames, times=times, boxes=boxes)


def embedding_of(seed: int = 0, dimensions: int = 256, **changes: Any) -> CropEmbedding:  # noqa: ANN401 - any field
    vector = np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)
    usual = CropEmbedding(
        modality=Modality.THERMAL,
        vector=vector / np.float32(np.linalg.norm(vector)),
        quality=0.75,
        captured_at=NOON,
        box=(1.5, 2.25, 30.0, 40.125),
        crop_jpeg=b"\xff\xd8 jpeg",
        tokens=bytes(range(256)),
    )
    return dataclasses.replace(usual, **changes)


def sighting_of(**changes: Any) -> Sighting:  # noqa: ANN401 - any field
    usual = Sighting(
        kind=SightingKind.UPDATE,
        site="crossing",
        region="main",
        camera="cam1",
        session="5f3a",
        number=17,
        sequence=2,
        started_at=(NOON - timedelta(seconds=3)).astimezone(timezone(timedelta(hours=5))),
        occurred_at=NOON,
        vehicle_class="car",
        class_votes={"car": 0.75, "truck": 0.25},
        path=path_of(30),
        embeddings=(embedding_of(),),
        model_id="porsche-small",
        context_image="cam1/5f3a/17.jpg",
    )
    return dataclasses.replace(usual, **changes)


def heartbeat_of(**changes: Any) -> Heartbeat:  # noqa: ANN401 - any field
    usual = Heartbeat(site="crossing", region="main", camera="cam1", session="5f3a", watermark=NOON)
    return dataclasses.replace(usual, **changes)


def assert_same_path(one: TrackPath, other: TrackPath) -> None:
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(np.rint(one.times * 1e6), np.rint(other.times * 1e6))
    assert one.boxes.shape == other.boxes.shape
    assert [array.dtype.name for array in (one.frames, one.times, one.boxes)] == ["int64", "float64", "float32"]
    # Half a step, and what float32 itself rounds of numbers up to 65,536.
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=0.5 / BOX_STEPS + 0.01)


def assert_same_embedding(one: CropEmbedding, other: CropEmbedding) -> None:
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-3)
    assert one.vector.dtype == np.float32
    assert float(np.linalg.norm(one.vector)) == pytest.approx(1, abs=1e-5)
    bare = np.ones(1, dtype=np.float32)
    assert dataclasses.replace(one, vector=bare) == dataclasses.replace(other, vector=bare)


def assert_same(one: Message, other: Message) -> None:
    if isinstance(one, Heartbeat) or isinstance(other, Heartbeat):
        assert one == other
        return
    assert_same_path(one.path, other.path)
    assert len(one.embeddings) == len(other.embeddings)
    for mine, yours in zip(one.embeddings, other.embeddings, strict=True):
        assert_same_embedding(mine, yours)
    empty = path_of(0)
    assert dataclasses.replace(one, path=empty, embeddings=()) == dataclasses.replace(other, path=empty, embeddings=())


names = st.text(st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("C", "Z")), min_size=1)
identifiers = names.map(lambda text: text[:32])
moments = st.integers(0, 36_500 * 86_400 * 10**6).map(lambda us: datetime(2000, 1, 2, tzinfo=UTC) + timedelta(0, 0, us))
pixels = st.floats(-60_000, 60_000, width=32)


@st.composite
def paths(draw: st.DrawFn) -> TrackPath:
    frames = draw(st.lists(st.integers(0, 2**50), unique=True, max_size=40).map(sorted))
    count = len(frames)
    times = draw(st.lists(st.floats(946_684_801, 4_102_444_799), min_size=count, max_size=count))
    corners = draw(st.lists(st.tuples(pixels, pixels, pixels, pixels), min_size=count, max_size=count))
    return TrackPath(
        frames=np.array(frames, dtype=np.int64),
        times=np.array(times, dtype=np.float64),
        boxes=np.array(corners, dtype=np.float32).reshape(count, 4),
    )


@st.composite
def embeddings_of(draw: st.DrawFn, modality: Modality) -> CropEmbedding:
    return embedding_of(
        seed=draw(st.integers(0, 1000)),
        dimensions=draw(st.sampled_from([1, 3, 128, 512])),
        modality=modality,
        quality=draw(st.floats(0, 1)),
        captured_at=draw(moments),
        box=draw(st.tuples(pixels, pixels, pixels, pixels)),
        crop_jpeg=draw(st.none() | st.binary(max_size=100)),
        tokens=draw(st.none() | st.binary(max_size=100)),
    )


@st.composite
def sightings(draw: st.DrawFn) -> Sighting:
    kind = draw(st.sampled_from(SightingKind))
    is_end = kind is SightingKind.END
    bands = draw(st.lists(st.sampled_from(Modality), unique=True, max_size=3 if is_end else 1))
    return Sighting(
        kind=kind,
        site=draw(identifiers),
        region=draw(identifiers),
        camera=draw(identifiers),
        session=draw(identifiers),
        number=draw(st.integers(0, 2**31 - 1)),
        sequence=draw(st.integers(0, 2**31 - 1)),
        started_at=draw(moments),
        occurred_at=draw(moments),
        vehicle_class=draw(identifiers),
        class_votes=draw(st.sampled_from([{"car": 1.0}, {"car": 0.1, "bus": 0.9}])),
        path=draw(paths()),
        embeddings=tuple(draw(embeddings_of(band)) for band in bands),
        model_id=draw(identifiers),
        context_image=draw(st.none() | st.just("cam1/a b.jpg")),
        end_reason=draw(st.sampled_from(EndReason)) if is_end else None,
    )


heartbeats = st.builds(
    Heartbeat,
    site=identifiers,
    region=identifiers,
    camera=identifiers,
    session=identifiers,
    watermark=moments,
    state=st.sampled_from(CameraState),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sightings() | heartbeats)
def test_what_is_encoded_comes_back(message: Message) -> None:
    payload = encode(message)
    decoded = decode(payload)
    assert_same(decoded, message)
    assert_same(decode(encode(decoded)), decoded)


@settings(max_examples=100, deadline=None)
@given(paths())
def test_a_path_comes_back(path: TrackPath) -> None:
    assert_same_path(decode_path(encode_path(path)), path)


def test_an_update_without_a_crop_is_small() -> None:
    assert len(encode(sighting_of(embeddings=(), path=path_of(25)))) < 700


def test_a_fresh_path_always_fits_up_to_the_promised_length() -> None:
    count = POINTS_THAT_ALWAYS_FIT
    generator = np.random.default_rng(1)
    worst = TrackPath(
        frames=np.unique(generator.integers(0, 2**53, 2 * count))[:count],
        times=generator.uniform(946_684_801, 4_102_444_799, count),
        boxes=generator.uniform(-65_000, 65_000, (count, 4)).astype(np.float32),
    )
    assert len(encode_path(worst)) <= MAX_PATH_BYTES


def test_a_path_too_long_is_refused_with_the_remedy() -> None:
    with pytest.raises(SightingError, match="cut the sighting sooner"):
        encode(sighting_of(path=path_of(20_000)))


def test_the_biggest_message_fits() -> None:
    generator = random.Random(1)
    crop, tokens = generator.randbytes(MAX_CROP_BYTES), generator.randbytes(MAX_TOKEN_BYTES)
    ends = tuple(embedding_of(dimensions=2048, modality=band, crop_jpeg=crop, tokens=tokens) for band in Modality)
    message = sighting_of(
        kind=SightingKind.END, end_reason=EndReason.LEFT, embeddings=ends, path=path_of(POINTS_THAT_ALWAYS_FIT)
    )
    assert len(encode(message)) <= MAX_MESSAGE_BYTES
    assert_same(decode(encode(message)), message)


BROKEN: dict[str, Message] = {
    "camera": sighting_of(camera=""),
    "session": heartbeat_of(session="a/b"),
    "site": sighting_of(site="two words"),
    "region": sighting_of(region="x" * 200),
    "schema_version": sighting_of(schema_version=2),
    "number": sighting_of(number=-1),
    "sequence": sighting_of(sequence=2**31),
    "started_at": sighting_of(started_at=datetime(1970, 1, 1, tzinfo=UTC)),
    "occurred_at": sighting_of(occurred_at=datetime(2100, 1, 1, tzinfo=UTC)),
    "watermark": heartbeat_of(watermark=datetime(2026, 1, 1)),  # noqa: DTZ001 - the fault under test
    "vehicle_class": sighting_of(vehicle_class=""),
    "vehicle_class: wanted 1-32": sighting_of(vehicle_class="x" * 33),
    "class_votes: wanted 1-32": sighting_of(class_votes={"a\x00b": 1.0}),
    "model_id: wanted 1-128": sighting_of(model_id="x" * 129),
    "class_votes": sighting_of(class_votes={"car": float("nan")}),
    "class_votes: wanted shares": sighting_of(class_votes={"car": 0.5}),
    "end_reason": sighting_of(end_reason=EndReason.LEFT),
    "end_reason: wanted one": sighting_of(kind=SightingKind.END),
    "embeddings": sighting_of(embeddings=(embedding_of(), embedding_of(modality=Modality.VISIBLE))),
    "embeddings: wanted one per modality": sighting_of(
        kind=SightingKind.END, end_reason=EndReason.LEFT, embeddings=(embedding_of(), embedding_of())
    ),
    "model_id": sighting_of(model_id=""),
    "context_image": sighting_of(context_image="../../etc/passwd"),
    "context_image: wanted a path": sighting_of(context_image="/etc/passwd"),
    "vector: wanted unit norm": sighting_of(embeddings=(embedding_of(vector=np.zeros(256, dtype=np.float32)),)),
    "vector: wanted unit norm, got 2": sighting_of(embeddings=(embedding_of(vector=np.ones(4, dtype=np.float32)),)),
    "vector: wanted unit norm, got nan": sighting_of(
        embeddings=(embedding_of(vector=np.full(256, np.nan, dtype=np.float32)),)
    ),
    "vector: wanted unit norm, got inf": sighting_of(
        embeddings=(embedding_of(vector=np.full(256, np.inf, dtype=np.float32)),)
    ),
    "vector: wanted (D,)": sighting_of(embeddings=(embedding_of(vector=np.ones(0, dtype=np.float32)),)),
    "quality": sighting_of(embeddings=(embedding_of(quality=1.5),)),
    "captured_at": sighting_of(embeddings=(embedding_of(captured_at=datetime(1970, 1, 1, tzinfo=UTC)),)),
    "box": sighting_of(embeddings=(embedding_of(box=(0.0, 0.0, float("inf"), 1.0)),)),
    "crop_jpeg": sighting_of(embeddings=(embedding_of(crop_jpeg=bytes(MAX_CROP_BYTES + 1)),)),
    "tokens": sighting_of(embeddings=(embedding_of(tokens=bytes(MAX_TOKEN_BYTES + 1)),)),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_message_out_of_contract_is_refused_before_it_is_sent(reason: str) -> None:
    with pytest.raises(SightingError) as caught:
        encode(BROKEN[reason])
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reason", sorted(set(BROKEN) - {"watermark"}))
def test_a_message_out_of_contract_is_refused_when_it_arrives(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without_rules, np.errstate(all="ignore"):
        # A sender that checks nothing.
        without_rules.setattr("streamer.sighting_rules.check", lambda _message: None)
        payload = encode(BROKEN[reason])
    with pytest.raises(SightingError):
        decode(payload)


def broken_path(frames: list[int], times: list[float], boxes: list[list[float]]) -> TrackPath:
    return TrackPath(np.array(frames), np.array(times), np.array(boxes, dtype=np.float32))


T = NOON.timestamp()
BOX = [0.0, 0.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (broken_path([2, 1], [T, T], [BOX, BOX]), "frames must rise"),
        (broken_path([1, 1], [T, T], [BOX, BOX]), "frames must rise"),
        (broken_path([-1, 1], [T, T], [BOX, BOX]), "frames must rise"),
        (broken_path([1], [0.0], [BOX]), "between 2000 and 2100"),
        (broken_path([1], [5e9], [BOX]), "between 2000 and 2100"),
        (broken_path([1], [float("nan")], [BOX]), "finite"),
        (broken_path([1], [T], [[0, 0, float("inf"), 1]]), "finite"),
        (broken_path([1], [T], [[0, 0, 1e9, 1]]), "65536 pixels"),
        (broken_path([1], [1e300], [BOX]), "between 2000 and 2100"),
    ],
)
def test_a_path_out_of_contract_is_refused(path: TrackPath, reason: str) -> None:
    with pytest.raises(SightingError, match=reason):
        encode_path(path)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"not zlib",
        encode_path(path_of(9))[:-1],
        encode_path(path_of(9)) + b"x",
        zlib.compress(b""),
        zlib.compress(zlib.decompress(encode_path(path_of(9))) + b"x"),
        zlib.compress(zlib.decompress(encode_path(path_of(9)))[:-1]),
        zlib.compress(b"\xff" * 40),
        zlib.compress(b"\xff\x7f\x00\x00" + bytes(16) + b"\x03" + bytes(100)),
        zlib.compress(bytes(60 << 20)),
        bytes(MAX_PATH_BYTES + 1),
    ],
)
def test_a_blob_that_is_no_path_is_refused(blob: bytes) -> None:
    with pytest.raises(SightingError, match="path: "):
        decode_path(blob)


def test_every_kind_of_float16_is_read_or_refused_without_a_warning() -> None:
    payload = bytearray(encode(sighting_of(embeddings=(embedding_of(dimensions=2),))))
    wire = embedding_of(dimensions=2).vector.astype("<f2").tobytes()
    at = payload.index(wire)
    # Every sign and exponent, hence zeros, subnormals, infinities, and both kinds of NaN.
    for high in range(256):
        for low in (0x00, 0x01, 0xFF):
            payload[at : at + 2] = bytes((low, high))
            decode_or_reason(bytes(payload))


def decode_or_reason(payload: bytes) -> Message | str:
    try:
        return decode(payload)
    except SightingError as error:
        reason = str(error)
    assert reason
    assert "\n" not in reason
    return reason


@pytest.mark.parametrize("message", [sighting_of(), heartbeat_of()], ids=["sighting", "heartbeat"])
def test_a_message_cut_anywhere_or_followed_by_anything_is_refused(message: Message) -> None:
    payload = encode(message)
    for length in range(len(payload)):
        assert isinstance(decode_or_reason(payload[:length]), str)
    assert isinstance(decode_or_reason(payload + b"\x00"), str)


def test_an_unknown_version_says_so() -> None:
    with pytest.raises(SightingError, match="unknown version 9, this program reads 1"):
        decode(b"\x09" + encode(heartbeat_of())[1:])


def test_a_message_too_big_is_not_even_parsed() -> None:
    with pytest.raises(SightingError, match="2000000 bytes, at most"):
        decode(bytes(2_000_000))


def test_noise_never_raises_anything_else() -> None:
    generator = random.Random(7)
    for _ in range(2000):
        decode_or_reason(generator.randbytes(generator.randrange(200)))
        decode_or_reason(b"\x01" + generator.randbytes(generator.randrange(200)))


def mutated(payload: bytes, generator: random.Random) -> bytes:
    changed = bytearray(payload)
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(len(changed))
        match generator.randrange(3):
            case 0:
                changed[at] = generator.randrange(256)
            case 1:
                del changed[at : at + generator.randrange(1, 5)]
            case _:
                changed[at:at] = generator.randbytes(generator.randrange(1, 9))
    return bytes(changed)


def test_mutated_messages_never_raise_anything_else() -> None:
    generator = random.Random(8)
    short = sighting_of(path=path_of(3), embeddings=(embedding_of(dimensions=4, tokens=None),))
    payloads = [encode(short), encode(sighting_of()), encode(heartbeat_of())]
    for number in range(3000):
        message = decode_or_reason(mutated(payloads[number % 3], generator))
        if not isinstance(message, str):
            # Whatever gets through obeys the contract, hence can be sent again.
            assert_same(decode(encode(message)), message)


# Versions.


def teach(
    version: int, change: Callable[[list[dict[str, Any]]], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:  # noqa: ANN401 - fastavro's parsed form
    """Gives this program the file of another version, which differs by that change; returns that writer's schema."""
    document = json.loads(Path(sighting_codec.__file__).with_name("sighting.avsc").read_text())
    change(document[0]["fields"])
    file = folder / f"sighting.{version}.avsc"
    file.write_text(json.dumps(document))
    monkeypatch.setitem(sighting_codec._SCHEMA_FILES, version, str(file))
    return fastavro.parse_schema(document)


def written(message: Message, version: int, schema: Any, **more: object) -> bytes:  # noqa: ANN401 - see `teach`
    """The message as that version's writer sends it."""
    if isinstance(message, Heartbeat):
        name, record = sighting_codec._heartbeat_record(message)
    else:
        name, record = sighting_codec._sighting_record(message)
    buffer = io.BytesIO()
    buffer.write(bytes((version,)))
    fastavro.schemaless_writer(buffer, schema, (name, record | {"schema_version": version} | more))
    return buffer.getvalue()


def without_pictures(fields: list[dict[str, Any]]) -> None:
    fields[:] = [field for field in fields if field["name"] not in ("context_image", "end_reason")]


def with_lane(fields: list[dict[str, Any]]) -> None:
    fields.insert(6, {"name": "lane", "type": ["null", "string"], "default": None})


def with_another_end(fields: list[dict[str, Any]]) -> None:
    fields[-1]["type"][1]["symbols"].append("towed")


OLDER, NEWER = SCHEMA_VERSION - 1, SCHEMA_VERSION + 1


@pytest.fixture(autouse=True)
def forgotten_schemas() -> None:
    parsed_schema.cache_clear()


def test_an_older_writers_message_is_read_with_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = teach(OLDER, without_pictures, tmp_path, monkeypatch)
    assert_same(decode(written(sighting_of(), OLDER, schema)), sighting_of(context_image=None))
    assert decode(written(heartbeat_of(), OLDER, schema)) == heartbeat_of()
    assert_same(decode(encode(sighting_of())), sighting_of())


def test_a_newer_writers_message_is_read_once_its_schema_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as taught:
        schema = teach(NEWER, with_lane, tmp_path, taught)
        payload = written(sighting_of(), NEWER, schema, lane="left")
        assert_same(decode(payload), sighting_of())
    with pytest.raises(SightingError, match=f"unknown version {NEWER}, this program reads {SCHEMA_VERSION}$"):
        decode(payload)


def test_a_newer_writers_word_that_ours_cannot_say_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = teach(NEWER, with_another_end, tmp_path, monkeypatch)
    end = sighting_of(kind=SightingKind.END, end_reason=EndReason.LEFT)
    assert_same(decode(written(end, NEWER, schema)), end)
    assert "towed" in str(decode_or_reason(written(end, NEWER, schema, end_reason="towed")))


def test_a_record_that_disowns_its_first_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = teach(OLDER, without_pictures, tmp_path, monkeypatch)
    with pytest.raises(SightingError, match=f"schema_version: wanted {OLDER}, as the first byte, got 7"):
        decode(written(sighting_of(), OLDER, schema, schema_version=7))


# Anything at all.

SHORT = sighting_of(path=path_of(3), embeddings=(embedding_of(dimensions=4, tokens=None),))
SEEDS = [encode(SHORT), encode(heartbeat_of()), encode(sighting_of())]


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Valid messages with bits flipped, cut, spliced into another, or with an enormous length put in."""
    payload, other = bytearray(draw(st.sampled_from(SEEDS))), draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        at, there = draw(st.integers(1, len(payload))), draw(st.integers(0, len(other)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(payload):
                payload[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del payload[at:]
            case 2:
                payload[at:] = other[there:]
            case _:
                payload[at:at] = HUGE
    return bytes(payload)


#: 2^60 as Avro writes it.
HUGE = b"\x80\x80\x80\x80\x80\x80\x80\x80\x20"


@settings(max_examples=size(500, 10_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile() | st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b"\x01" + tail))
def test_only_our_error_comes_out_of_any_bytes(payload: bytes) -> None:
    read = decode_or_reason(payload)
    if isinstance(read, str):
        assert read.isprintable()
        assert len(read) < 300
    else:
        assert_same(decode(encode(read)), read)


@pytest.mark.parametrize("seed", SEEDS[:2], ids=["sighting", "heartbeat"])
def test_a_length_of_an_exabyte_takes_no_memory(seed: bytes) -> None:
    tracemalloc.start()
    try:
        for at in range(1, min(len(seed), 400)):
            decode_or_reason(seed[:at] + HUGE + seed[at + 1 :])
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
