"""Pictures that people send, decoded within bounds: what a file says of itself is checked before it is believed."""

from __future__ import annotations

import io
import re
import struct
import warnings
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Decoders that an upload may reach; Pillow knows many more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
#: A picture, or a part of it, has at least so many pixels each way: less says nothing of a vehicle.
MIN_SIDE = 8
#: Larger pictures are shrunk to so many pixels each way: as a camera takes it, one would take 75 MB for as long as its
#: page is open.
MAX_SIDE = 3000
#: A JPEG may go over its pixels again and again, 42 bytes each time: 8 MB of that would be decoded for an hour.
MAX_SCANS = 100
#: How long a picture waits for others to be decoded.
BUSY_S = 20.0
#: Pictures that are decoded at once: one of 25 million pixels takes some 600 MB meanwhile, and may come as 50 kB.
_AT_ONCE = BoundedSemaphore(2)
#: Of these Pillow makes one channel of more than 8 bits.
_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
#: What makes a picture upright, by the orientation that EXIF tells.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a JPEG's segments begin with, but for those that have no length.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
#: Whatever decoders say of a broken file: Pillow's raise all of these.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, struct.error)


class UploadError(ValueError):
    """A file that is no picture that can be taken; in one line that a person can be shown."""


def read_picture(data: bytes, *, max_bytes: int, max_pixels: int) -> NDArray[np.uint8]:
    """A picture of a file that somebody sent. Blocks while two others are decoded, `BUSY_S` at most.

    One with more than 8 bits a pixel, as thermal cameras write, is stretched between its coldest and hottest pixel.

    Args:
        data: The file: JPEG, PNG, WebP, TIFF or BMP.
        max_bytes: Longer ones are refused.
        max_pixels: Larger ones are refused, by what the file says of itself, before anything is decoded.

    Returns:
        (h, w, 3) uint8, RGB, upright, of `MAX_SIDE` at most.

    Raises:
        UploadError: It is too large or too small, broken, moving, or no such picture; or others take too long.
    """
    if len(data) > max_bytes:
        raise UploadError(f"the file has {len(data)} bytes: at most {max_bytes} are taken")
    if not _AT_ONCE.acquire(timeout=BUSY_S):
        raise UploadError("other pictures are being read: send it again in a moment")
    try:
        return _decoded(data, max_pixels)
    finally:
        _AT_ONCE.release()


def _decoded(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            # Pillow's own bound is a warning below twice its size; ours is smaller and stricter.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Text beside a damaged picture is nobody's concern.
            warnings.simplefilter("ignore", UserWarning)
            _check_size(_webp_size(data), max_pixels)
            if data.startswith(b"\xff\xd8") and _scans(data) > MAX_SCANS:
                raise UploadError(f"the picture has too many scans: at most {MAX_SCANS} are taken")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.size, max_pixels)
                if min(picture.size) < MIN_SIDE:
                    width, height = picture.size
                    raise UploadError(f"the picture has {width}x{height} pixels: wanted {MIN_SIDE} each way at least")
                _check_single(picture)
                picture.load()
                return _shrunk(_upright(picture))
    except UploadError:
        raise
    except Image.DecompressionBombError as error:
        raise UploadError(f"the picture has too many pixels: at most {max_pixels} are taken") from error
    except UnidentifiedImageError as error:
        raise UploadError("this is no picture: JPEG, PNG, WebP, TIFF and BMP are taken") from error
    except _BROKEN as error:
        raise UploadError(f"the picture is broken: {' '.join(str(error).split()) or type(error).__name__}") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UploadError("the picture is empty")
    if width * height > max_pixels:
        raise UploadError(f"the picture has {width}x{height} pixels: at most {max_pixels} are taken")


def _webp_size(data: bytes) -> tuple[int, int]:
    """What a WebP file says of itself: Pillow's decoder takes memory for it when it is opened. 1x1 for other files.

    As the container is specified: RFC 9649, sections 2.4 to 2.7.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 1, 1
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _scans(data: bytes) -> int:
    """How many times a JPEG goes over its pixels, as ITU-T T.81, annex B, has its segments."""
    count, at = 0, 2
    while (found := _MARKER.search(data, at)) is not None:
        at = found.end()
        kind = data[at - 1]
        if kind == 0xD9:
            break  # the end; what phones put behind it is no part of the picture
        count += kind == 0xDA
        at += int.from_bytes(data[at : at + 2], "big")
    return count


def _check_single(picture: Image.Image) -> None:
    if picture.format == "TIFF":
        # To count a TIFF's frames is to visit all, of which a small file can have a million.
        try:
            picture.seek(1)
        except EOFError:
            picture.seek(0)
            return
        raise UploadError("the picture has several frames: one is taken")
    # Phones put a picture's depth or a preview behind it (MPO): the first is the picture.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        raise UploadError("the picture has several frames: one is taken")


def _upright(picture: Image.Image) -> NDArray[np.uint8]:
    # By hand: Pillow's own writes the EXIF anew, and refuses a picture whose camera wrote something odd into it.
    try:
        method = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        method = None
    turned: Image.Image = picture if method is None else picture.transpose(method)
    if turned.mode in _DEEP_MODES:
        return stretched(np.array(turned, dtype=np.float64))
    if "A" in turned.getbands() or "transparency" in turned.info:
        with_alpha = turned.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        turned = Image.alpha_composite(white, with_alpha)
    return np.array(turned.convert("RGB"), dtype=np.uint8)  # (h, w, 3)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(image.shape[:2]) <= MAX_SIDE:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.array(picture)


def stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(h, w) of any range -> (h, w, 3) from 0 to 255. Changes the values: a copy of each step would be 200 MB."""
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    low = values.min()
    values -= low
    span = values.max()
    if span > 0:
        values *= 255.0 / span
    np.rint(values, out=values)
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)
