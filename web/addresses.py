"""Addresses of views, which many views lead to."""

from __future__ import annotations

from urllib.parse import quote


def vehicle(vehicle_id: str, *, at: str = "") -> str:
    """The view of a vehicle.

    Args:
        vehicle_id: Its id.
        at: The tracklet whose stop is shown first; empty: none before others.
    """
    return f"/vehicles/{quote(vehicle_id, safe='')}" + (f"?at={quote(at, safe='')}" if at else "")


def vehicles_at(camera: str) -> str:
    """The list of what a camera saw."""
    return f"/vehicles?camera={quote(camera, safe='')}"
