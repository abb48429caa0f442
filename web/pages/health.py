"""Health: lag, drops, latency and reconnects over the last hours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from nicegui import ui

from storage.accounts import Role
from storage.camera_troubles import OpenTrouble, open_troubles
from storage.dead_letters import count_dead_letters
from storage.status import load_stage_status
from storage.status_samples import CAMERA, STAGE, load_samples
from web import wording
from web.pages.blocking import answered
from web.pages.following import follow
from web.pages.frame import View, empty, page
from web.pages.live import cameras_now, figures_of, state_of
from web.trends import Line, rates, rises, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Session
    from storage.records import CameraStatus, StageStatus
    from storage.status_samples import StatusSample

HOURS = {1: "1 hour", 6: "6 hours", 24: "24 hours", 48: "48 hours"}
#: More lines than this in one chart can't be told apart.
_MAX_LINES = 24
#: Lines, seen on light and on dark ground. What is written is coloured by the style sheet, which knows which it is.
_COLOURS = ["#3f86e0", "#d97f00", "#2a9d66", "#c05ab0", "#d4554a", "#8473d8", "#2f9fb0", "#98873a"]
_MATCHER = "matcher"
#: Samples come every minute.
REFRESH_S = 60.0
#: Messages that a matcher has behind it in seconds.
_MANY_WAITING = 1000


@dataclass(frozen=True, slots=True)
class _Stages:
    """What serves all cameras, and so tells of all: for operators, as in the HTTP API."""

    status: list[StageStatus]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class _Known:
    at: datetime
    cameras: list[CameraStatus]
    troubles: list[OpenTrouble]
    dropped: float
    reconnects: float
    charts: dict[str, dict[str, Any]]
    stages: _Stages | None


@page("/health", "Health")
async def health(view: View, hours: int = 6) -> None:
    """What needs attention first, then how it came."""
    hours = hours if hours in HOURS else 6
    span = timedelta(hours=hours)
    is_told_all = view.caller.may(Role.OPERATOR)

    # All of it in a thread: the lines of twenty cameras over two days take half a second, in which no page would move.
    def read(session: Session) -> _Known:
        now = datetime.now(UTC)
        samples = load_samples(session, now - span, visible=view.caller.cameras)
        return _Known(
            now,
            cameras_now(session, view, now),
            open_troubles(session, visible=view.caller.cameras),
            sum(rises(samples, CAMERA, "dropped").values()),
            sum(rises(samples, CAMERA, "reconnects").values()),
            charts(samples, now, span, zone=view.services.site.time_zone, with_stages=is_told_all),
            _Stages(load_stage_status(session), count_dead_letters(session)) if is_told_all else None,
        )

    def first() -> _Known:
        with view.services.asking(view.caller, "health", hours=hours) as session:
            return read(session)

    def again() -> _Known:
        with view.services.following(view.caller) as session:
            return read(session)

    known = await answered(first)

    @ui.refreshable
    def attention(known: _Known) -> None:
        _attention(view, known)

    @ui.refreshable
    def course(known: _Known) -> None:
        if known.charts:
            _charts(known.charts)
        else:
            empty("Nothing was noted in this time: a running site notes how it is doing every minute.", "monitor_heart")
        _tables(view, known)

    attention(known)
    with ui.row().classes("w-full items-center justify-between"):
        ui.label("Over time").props('role="heading" aria-level="2"').classes("text-subtitle1")
        ui.toggle(HOURS, value=hours, on_change=lambda event: ui.navigate.to(f"/health?hours={event.value}")).props(
            'no-caps dense aria-label="How far back"'
        )
    course(known)

    def show(newer: _Known) -> None:
        attention.refresh(newer)
        course.refresh(newer)

    follow(view, again, show, every_s=REFRESH_S)


def _attention(view: View, known: _Known) -> None:
    """Big figures, and in words what is wrong."""
    bad = [one for one in known.cameras if state_of(one, known.at) == "bad"]
    with ui.element("div").classes("gallery w-full"):
        _figure("cameras in trouble", f"{len(bad)} of {len(known.cameras)}", is_bad=bool(bad))
        _figure("frames dropped", f"{known.dropped:,.0f}", is_bad=known.dropped > 0)
        _figure("reconnects", f"{known.reconnects:,.0f}", is_bad=known.reconnects > 0)
        if known.stages is not None:
            lag = max((one.counters.get("lag", 0.0) for one in known.stages.status), default=0.0)
            _figure("messages waiting", f"{lag:,.0f}", is_bad=lag > _MANY_WAITING)
            _figure("dead letters", f"{known.stages.dead_letters:,}", is_bad=known.stages.dead_letters > 0)
    with ui.column().classes("gap-1 w-full").props('role="status"'):
        for one in bad:
            ui.label(f"{one.camera}: {figures_of(one, known.at, view.services.zone)}").classes("bad")
        for trouble in known.troubles:
            since = wording.moment(trouble.began_at, known.at, view.services.zone)
            ui.label(f"{trouble.camera}: {trouble.kind} since {since}").classes("bad")
        if not known.cameras:
            ui.label("No camera has said anything yet.").classes("soft")
        elif not bad and not known.troubles:
            ui.label("Nothing needs attention.").classes("good")


def _figure(name: str, value: str, *, is_bad: bool) -> None:
    with ui.column().classes("panel gap-0"):
        ui.label(value).classes(f"figure {'bad' if is_bad else ''}")
        ui.label(name).classes("text-sm soft")


def charts(
    samples: Sequence[StatusSample], until: datetime, span: timedelta, *, zone: str, with_stages: bool
) -> dict[str, dict[str, Any]]:
    """What is drawn of the samples, by title; nothing where there are none.

    Args:
        samples: By time.
        until: Where the charts end: one that ended at its last sample would hide that nobody counts any more.
        span: What each shows.
        zone: In which its times are read, whatever that of the browser.
        with_stages: Those of the stages, too.
    """
    if not samples:
        return {}
    lines = {
        "Frames decoded, each minute": rates(samples, CAMERA, "decoded", span),
        "Frames dropped, each minute": rates(samples, CAMERA, "dropped", span),
        "Decoded after captured, seconds": worst(samples, CAMERA, "skew_s", span),
        "Reconnects, each minute": rates(samples, CAMERA, "reconnects", span),
    }
    if with_stages:
        matched = [one for one in samples if one.source == _MATCHER]
        lines["Messages waiting"] = worst(samples, STAGE, "lag", span)
        lines["Sightings matched, each minute"] = rates(matched, STAGE, "sightings", span)
    return {title: _options(title, drawn, until, span, zone) for title, drawn in lines.items()}


def _options(title: str, lines: dict[str, Line], until: datetime, span: timedelta, zone: str) -> dict[str, Any]:
    shown = sorted(lines.items(), key=lambda line: -max((value or 0.0 for _, value in line[1]), default=0.0))
    series: list[dict[str, Any]] = [
        {
            "name": name,
            "type": "line",
            "showSymbol": len(points) < 3,
            "data": [[_ms(at), None if value is None else round(value, 3)] for at, value in points],
        }
        for name, points in sorted(shown[:_MAX_LINES])
    ]
    # Moments go over as they are: written in the site's time, an hour that comes twice a year would be drawn twice.
    clock = f"new Intl.DateTimeFormat('en-GB', {{timeZone: {json.dumps(zone)}, %s}})"
    of_day = clock % "hour: '2-digit', minute: '2-digit'"
    of_year = clock % "day: 'numeric', month: 'short'"
    whole = clock % "dateStyle: 'medium', timeStyle: 'medium'"
    return {
        "animation": False,
        "color": _COLOURS,
        "grid": {"left": 48, "right": 16, "top": 16, "bottom": 56},
        "tooltip": {"trigger": "axis", "renderMode": "richText", "backgroundColor": "var(--surface)"},
        "legend": {"type": "scroll", "bottom": 0},
        "xAxis": {
            "type": "time",
            "min": _ms(until - span),
            "max": _ms(until),
            "axisLabel": {
                "hideOverlap": True,
                ":formatter": f"at => {of_day}.format(at).replace('00:00', {of_year}.format(at))",
            },
            "axisPointer": {"label": {":formatter": f"at => {whole}.format(at.value)"}},
        },
        "yAxis": {
            "type": "value",
            "minInterval": 0 if title.endswith("seconds") else 1,
            "splitLine": {"lineStyle": {"color": "var(--line)"}},
        },
        "series": series,
    }


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _charts(drawn: dict[str, dict[str, Any]]) -> None:
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-4 w-full"):
        for title, options in drawn.items():
            with ui.element("section").classes("panel min-w-0"):
                ui.label(title).props('role="heading" aria-level="3"').classes("text-sm soft")
                if any(line["data"] for line in options["series"]):
                    ui.echart(options, renderer="svg").classes("chart w-full").style("height: 220px")
                else:
                    ui.label("Not enough was noted yet.").classes("soft py-8")


def _tables(view: View, known: _Known) -> None:
    cameras = [
        {
            "camera": one.camera,
            "state": one.state,
            "fps": round(one.fps, 1),
            "decoded": one.decoded,
            "dropped": one.dropped,
            "reconnects": one.reconnects,
            "errors": one.decode_errors,
            "late": round(one.skew_s, 2),
            "heard": view.time(one.updated_at, "%Y-%m-%d %H:%M:%S"),
        }
        for one in known.cameras
    ]
    names = {
        "camera": "Camera",
        "state": "State",
        "fps": "fps",
        "decoded": "Decoded",
        "dropped": "Dropped",
        "reconnects": "Reconnects",
        "errors": "Decode errors",
        "late": "Late, s",
        "heard": "Last heard of",
    }
    _table("Cameras", names, cameras, "camera")
    if known.stages is None:
        return
    keys = ("stage", "handled", "lag", "rejected", "failures", "restarts", "heard")
    stages = [
        {
            "stage": one.stage,
            **{name: round(one.counters.get(name, 0.0)) for name in keys[1:-1]},
            "heard": view.time(one.updated_at, "%Y-%m-%d %H:%M:%S"),
        }
        for one in known.stages.status
    ]
    headings = ("Stage", "Handled", "Waiting", "Rejected", "Failures", "Restarts", "Last heard of")
    _table("Stages", dict(zip(keys, headings, strict=True)), stages, "stage")


def _table(title: str, names: dict[str, str], rows: list[dict[str, Any]], key: str) -> None:
    columns = [
        {"name": name, "label": label, "field": name, "align": "left" if index < 1 else "right", "sortable": True}
        for index, (name, label) in enumerate(names.items())
    ]
    with ui.element("section").classes("panel w-full min-w-0"):
        ui.label(title).props('role="heading" aria-level="3"').classes("text-sm soft")
        ui.table(columns=columns, rows=rows, row_key=key, pagination=0).props("flat dense hide-pagination").classes(
            "w-full"
        )
