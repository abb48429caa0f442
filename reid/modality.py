"""What kind of light made a picture."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """The sensor's band. Values are what config files, databases and messages say."""

    VISIBLE = "visible"
    NEAR_INFRARED = "near_infrared"
    THERMAL = "thermal"
