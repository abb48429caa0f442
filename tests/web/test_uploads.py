"""Pictures that people send: each that can be taken, and those that are made to hurt."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from web.uploads import UploadError, read_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytest_plugins = ("tests.web.pillow",)

LIMITS = {"max_bytes": 1 << 20, "max_pixels": 100_000}
RED_LEFT = np.zeros((20, 30, 3), np.uint8)
RED_LEFT[:, :15, 0] = 255


def _file(picture: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def _png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of one bit a pixel that says of itself what we like."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_pictures_are_read_as_rgb(kind: str) -> None:
    found = read_picture(_file(RED_LEFT, kind), **LIMITS)
    assert found.shape == (20, 30, 3)
    assert found.dtype == np.uint8
    assert found[10, 3, 0] > 200
    assert found[10, 3, 1:].max() < 60
    assert found[10, 27].max() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_picture_is_turned_as_its_camera_was_held(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _file(RED_LEFT, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as picture:
        upright = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(read_picture(data, **LIMITS), upright)


def test_a_picture_is_taken_and_turned_whatever_else_its_camera_wrote_beside_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    # A text where its width belongs.
    odd = exif.tobytes().replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")
    assert read_picture(_file(RED_LEFT, "JPEG", exif=odd), **LIMITS).shape == (30, 20, 3)
    assert read_picture(_file(RED_LEFT, "JPEG", exif=odd[:20]), **LIMITS).shape == (20, 30, 3)


def test_of_a_phones_picture_with_another_behind_it_the_first_is_taken() -> None:
    behind = Image.fromarray(RED_LEFT[:, ::-1].copy())
    found = read_picture(_file(Image.fromarray(RED_LEFT), "MPO", save_all=True, append_images=[behind]), **LIMITS)
    assert found[10, 3, 0] > 200
    assert found[10, 27].max() < 60


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 7)])
def test_what_is_too_small_for_any_vehicle_is_refused(width: int, height: int) -> None:
    with pytest.raises(UploadError, match=f"has {width}x{height} pixels: wanted 8 each way"):
        read_picture(_file(Image.new("RGB", (width, height))), **LIMITS)


def _large(pixels: NDArray[Any]) -> NDArray[Any]:
    """Each pixel 8 times as wide and as high."""
    return pixels.repeat(8, axis=0).repeat(8, axis=1)


def test_16_bits_of_heat_become_8_between_coldest_and_hottest() -> None:
    heat = np.array([[29_000, 29_500], [30_000, 29_000]], np.uint16)
    for kind in ("PNG", "TIFF"):
        found = read_picture(_file(Image.fromarray(_large(heat)), kind), **LIMITS)
        assert found[::8, ::8, 0].tolist() == [[0, 128], [255, 0]]
        assert (found[:, :, 0] == found[:, :, 2]).all()
    even = read_picture(_file(Image.fromarray(np.full((8, 8), 30_000, np.uint16))), **LIMITS)
    assert even.max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_whatever_its_pixels_are_it_becomes_rgb(mode: str) -> None:
    picture = Image.fromarray(RED_LEFT)
    converted = picture.convert("L").convert(mode) if mode in ("I;16", "I", "F") else picture.convert(mode)
    found = read_picture(_file(converted, "TIFF"), **LIMITS)
    assert found.shape == (20, 30, 3)
    assert found.dtype == np.uint8
    assert found[:, :15].mean() > found[:, 15:].mean()


def test_what_is_clear_becomes_white_and_colours_of_a_palette_themselves() -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    assert read_picture(_file(clear), **LIMITS).min() == 255
    found = read_picture(_file(Image.fromarray(RED_LEFT).convert("P")), **LIMITS)
    assert found[10, 3].tolist() == [255, 0, 0]


def test_a_picture_that_says_it_is_huge_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _png(50_000, 50_000, bytes(6251 * 2_000))
    assert len(bomb) < 30_000

    def load(_self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(UploadError, match="pixels: at most 25000000 are taken"):
        read_picture(bomb, max_bytes=1 << 20, max_pixels=25_000_000)


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        (b"VP8X", bytes(4) + b"\xff\xff\xff" + b"\xff\0\0"),
        (b"VP8L", b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little")),
        (b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + b"\xff\x3f\xff\x3f"),
    ],
)
def test_a_webp_takes_no_memory_for_what_it_says_of_itself(
    monkeypatch: pytest.MonkeyPatch, kind: bytes, rest: bytes
) -> None:
    def opened(*_arguments: object, **_options: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(UploadError, match="pixels: at most 100000 are taken"):
        read_picture(b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4) + rest + bytes(40), **LIMITS)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0"}]
)
def test_a_webps_size_is_found_as_its_decoder_finds_it(options: dict[str, Any]) -> None:
    data = _file(RED_LEFT, "WEBP", **options)
    assert read_picture(data, max_bytes=1 << 20, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(UploadError, match="30x20 pixels: at most 599"):
        read_picture(data, max_bytes=1 << 20, max_pixels=599)


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused() -> None:
    whole = _file(RED_LEFT, "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    again = [whole[:-2] + last * number + whole[-2:] for number in (20, 101)]
    assert read_picture(again[0], **LIMITS).shape == RED_LEFT.shape
    with pytest.raises(UploadError, match="too many scans: at most 100"):
        read_picture(again[1], **LIMITS)
    # A film that a phone puts behind its picture is no part of it, whatever its bytes are.
    assert read_picture(whole + last * 200, **LIMITS).shape == RED_LEFT.shape


@pytest.mark.parametrize("side", [317, 12_000, 100_000])
def test_every_size_beyond_the_limit_is_refused_in_the_same_words(side: int) -> None:
    with pytest.raises(UploadError, match="pixels: at most 100000 are taken"):
        read_picture(_png(side, side, b"\0"), **LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_half_a_picture_is_none(kind: str) -> None:
    whole = _file(np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8), kind)
    with pytest.raises(UploadError, match=r"broken|no picture"):
        read_picture(whole[: len(whole) // 2], **LIMITS)


def test_too_long_a_file_is_not_looked_at() -> None:
    with pytest.raises(UploadError, match="1025 bytes: at most 1024"):
        read_picture(b"x" * 1025, max_bytes=1024, max_pixels=1)


def test_a_moving_picture_is_refused() -> None:
    frames = [Image.fromarray(RED_LEFT), Image.fromarray(RED_LEFT[:, ::-1].copy())]
    for kind in ("PNG", "WEBP", "TIFF"):
        with pytest.raises(UploadError, match="several frames"):
            read_picture(_file(frames[0], kind, save_all=True, append_images=frames[1:]), **LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(100),
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.4",
        b"<!doctype html>",
        bytes(1000),
    ],
)
def test_what_is_no_such_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UploadError, match="this is no picture"):
        read_picture(data, **LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_file_cut_off_or_damaged_anywhere_is_a_picture_or_refused_in_one_line(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    whole = _file(noise, kind)
    refusals = []
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        for data in (whole[:at], bytes(damaged)):
            try:
                assert read_picture(data, **LIMITS).ndim == 3
            except UploadError as error:
                refusals.append(str(error))
    assert len(refusals) > 30
    assert not [line for line in refusals if "\n" in line]


def test_two_pictures_are_decoded_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    both, lock, inside, seen = Barrier(2), Lock(), [0], [0]

    def watched(picture: Image.Image) -> NDArray[np.uint8]:
        with lock:
            inside[0] += 1
            seen[0] = max(seen[0], inside[0])
        both.wait(timeout=30)
        with lock:
            inside[0] -= 1
        return np.zeros((*picture.size, 3), np.uint8)

    monkeypatch.setattr("web.uploads._upright", watched)
    data = _file(Image.new("RGB", (8, 8)))
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(read_picture, data, **LIMITS) for _ in range(8)]:
            assert done.result().shape == (8, 8, 3)
    assert seen == [2]


def test_who_waits_too_long_for_others_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.uploads.BUSY_S", 0.01)
    monkeypatch.setattr("web.uploads._AT_ONCE", BoundedSemaphore(1))
    data = _file(RED_LEFT)

    def watched(_picture: Image.Image) -> NDArray[np.uint8]:
        with pytest.raises(UploadError, match="send it again in a moment"):
            read_picture(data, **LIMITS)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr("web.uploads._upright", watched)
    for _ in range(2):
        read_picture(data, **LIMITS)
