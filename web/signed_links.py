"""Addresses of pictures and clips that are good for some minutes, for whoever holds them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote

#: Path below which pictures lie, named as the database names them; and clips, by tracklet.
PICTURES, CLIPS = "/media/pictures/", "/media/clips/"


class SignedLinks:
    """Signs paths with a key that ends with this program.

    Args:
        lifetime_s: How long an address is good for at most, in seconds, and half of that at least: for so long, a
            picture keeps its address, and browsers need not fetch it again with each view.
    """

    def __init__(self, lifetime_s: float) -> None:
        self._key = secrets.token_bytes(32)
        self._step_s = lifetime_s / 2

    def picture(self, relative: str) -> str:
        """Where a crop or a context picture is found, of its path below the crop store."""
        return self._signed(PICTURES + quote(relative))

    def clip(self, tracklet_id: str) -> str:
        """Where the film of a tracklet is found."""
        return self._signed(CLIPS + quote(tracklet_id))

    def is_good(self, path: str, expires: str, signature: str) -> bool:
        """Whether that is an address of ours, and not too old.

        Args:
            path: As it stands in the address, still quoted.
            expires: Seconds since the Unix epoch, decimal.
            signature: Hexadecimal.
        """
        # Letters beyond ASCII can't be compared in constant time, and are in no signature.
        if not (expires.isascii() and expires.isdigit() and signature.isascii()):
            return False
        return hmac.compare_digest(self._signature(path, expires), signature) and time.time() < int(expires)

    def _signed(self, path: str) -> str:
        expires = str(int((time.time() // self._step_s + 2) * self._step_s))
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{expires}:{path}".encode(), hashlib.sha256).hexdigest()
