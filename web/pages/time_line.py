"""A vehicle's stops over time: a lane for each camera, a bar for each stay."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from nicegui import ui

from web import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.trajectories import Stop
    from web.pages.frame import View

_WIDTH, _LEFT, _LANE, _TOP = 440.0, 112.0, 30.0, 24.0
#: A stay of a moment is still seen.
_THINNEST = 4.0
_TICKS = 4
#: Of a name in the margin so many letters are shown; the bar's title has the rest.
_LETTERS = 15


def time_line(view: View, stops: Sequence[Stop], left_out: int = 0) -> ui.element:
    """Draws them; every text in it is escaped.

    Args:
        view: Where it is shown.
        stops: At least one, by arrival.
        left_out: So many of the first are not in the view itself: their bars lead to a view that has them.
    """
    return ui.html(drawing(view, stops, left_out), sanitize=False).classes("w-full")


def drawing(view: View, stops: Sequence[Stop], left_out: int = 0) -> str:
    """The SVG."""
    cameras = list(dict.fromkeys(stop.camera for stop in stops))
    begin, end = min(stop.arrival for stop in stops), max(stop.departure for stop in stops)
    span_s = max((end - begin).total_seconds(), 1.0)
    scale = (_WIDTH - _LEFT - 16) / span_s
    height = _TOP + _LANE * len(cameras) + 8
    parts = [
        f'<svg class="time-line" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="group" aria-label="Stops over time">'
    ]
    day = "%Y-%m-%d"
    pattern = "%H:%M:%S" if view.time(begin, day) == view.time(end, day) else f"{day} %H:%M"
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        x = _LEFT + share * span_s * scale
        moment = view.time(begin + (end - begin) * share, pattern)
        anchor = "start" if tick == 0 else "end" if tick == _TICKS else "middle"
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - 8:.1f}"/>')
        if tick % 2 == 0:
            parts.append(f'<text x="{x:.1f}" y="12" text-anchor="{anchor}">{escape(moment)}</text>')
    for index, camera in enumerate(cameras):
        y = _TOP + _LANE * index
        name = camera if len(camera) <= _LETTERS else camera[: _LETTERS - 1] + "…"
        parts.append(f'<text x="0" y="{y + 20:.1f}">{escape(name)}</text>')
    for number, stop in enumerate(stops, start=1):
        x = _LEFT + (stop.arrival - begin).total_seconds() * scale
        width = max((stop.departure - stop.arrival).total_seconds() * scale, _THINNEST)
        y = _TOP + _LANE * cameras.index(stop.camera) + 6
        told = f"{number}. {stop.camera}, {wording.span(stop.arrival, stop.departure, view.services.zone)}"
        target = f"#stop-{number}" if number > left_out else f"?at={quote(stop.tracklet_id, safe='')}"
        parts.append(
            f'<a href="{target}" aria-label="{escape(told)}"><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="20" rx="3"><title>{escape(told)}</title></rect></a>'
        )
    parts.append("</svg>")
    return "".join(parts)
