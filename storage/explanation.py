"""Why a tracklet belongs to its vehicle, in words: who decided, when, by what, and what had been said before."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from storage.answers import halved, limited, probability
from storage.camera_troubles import troubles_of_tracklet
from storage.export import utc_text
from storage.history import Correction, Decision, corrections, decisions
from storage.lookup import find_tracklet
from storage.models import AssignmentRow, EmbeddingRow
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

_REASONS = {
    "new": "a vehicle not seen before",
    "linked": "linked to a vehicle that is known",
    "joined": "a tracklet of the same camera that broke off goes on",
    "returned": "a vehicle that came back after long",
    "merge": "two vehicles taken for one",
    "split": "one vehicle taken for two",
    "move": "moved to another vehicle",
    "confirm": "confirmed where it was",
    "undo": "a correction taken back",
}
#: So many characters of a vehicle's id are told: as many as its first part has.
_SHORT = 8
_LONG_IDS = re.compile(r"\b([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
#: What is rounded to a thousandth, several times.
_ROUNDING = 0.02


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that was decided on a tracklet.

    Attributes:
        tracklet_id: The tracklet.
        camera: Where.
        vehicle_class: By vote of its frames.
        started_at: First frame.
        ended_at: Last frame so far.
        end_reason: Why it ended; None while it goes on.
        decisions: Latest first; none while it has no vehicle.
        corrections: Those that decided on it, by number.
        crops: The best picture of each band, below the crop store, of it and of those that it was compared with, by
            tracklet; none of those without one.
        camera_trouble: What was wrong with the camera's picture meanwhile, or None.
    """

    tracklet_id: str
    camera: str
    vehicle_class: str
    started_at: datetime
    ended_at: datetime
    end_reason: str | None
    decisions: tuple[Decision, ...]
    corrections: dict[int, Correction]
    crops: dict[str, tuple[str, ...]]
    camera_trouble: str | None = None


def explain(session: Session, tracklet_id: str, *, visible: Collection[str] | None = None) -> Explanation:
    """All that was decided on the tracklet of that id, or on the only one whose id begins or ends so.

    Args:
        session: To read from.
        tracklet_id: Its id, or a part of it.
        visible: The only cameras that there are for whoever asks; None: all. What was weighed against tracklets of
            others, and what a correction did to these, is left out.

    Raises:
        TrackletNotFoundError: None, or several.
    """
    found = find_tracklet(session, tracklet_id, visible=visible)
    made = decisions(session, AssignmentRow.tracklet_id == found.tracklet_id)
    if visible is not None:
        made = [replace(decision, said=limited(decision.said, visible)) for decision in made]
    return Explanation(
        found.tracklet_id,
        found.camera,
        found.vehicle_class,
        found.started_at,
        found.ended_at,
        found.end_reason,
        tuple(reversed(made)),
        {one.correction_id: one for one in corrections(session, tracklet_id=found.tracklet_id, visible=visible)},
        _crops(session, {found.tracklet_id, *_compared(made)}),
        troubles_of_tracklet(session, found.tracklet_id),
    )


def in_words(explanation: Explanation) -> Iterator[str]:
    """The explanation, line by line."""
    end = f"ended: {explanation.end_reason}" if explanation.end_reason else "it goes on"
    seen = f"{_time(explanation.started_at)} to {_time(explanation.ended_at)}"
    yield f"{explanation.tracklet_id}: {explanation.vehicle_class} at {explanation.camera}, {seen}, {end}"
    if explanation.camera_trouble:
        yield f"meanwhile the camera's picture was not to be trusted: {explanation.camera_trouble}"
    yield from _pictures(explanation, explanation.tracklet_id)
    if not explanation.decisions:
        yield "It has no vehicle yet."
    for index, decision in enumerate(explanation.decisions):
        yield ""
        yield f"{'now' if index == 0 else 'before that'}: vehicle {_short(decision.said.vehicle_id)}"
        correction = explanation.corrections.get(decision.correction_id or 0)
        lines = [_decider(decision, correction), *_of_correction(correction), *_evidence(decision, explanation)]
        yield from (f"  {line}" for line in lines)


def _time(moment: datetime) -> str:
    return utc_text(moment, "milliseconds")


def _compared(made: Iterable[Decision]) -> set[str]:
    """The tracklets that decisions name."""
    listed = (decision.said.evidence.get("candidates") for decision in made)
    told = (one for candidates in listed if isinstance(candidates, list) for one in candidates if isinstance(one, dict))
    return {one["tracklet_id"] for one in told if isinstance(one.get("tracklet_id"), str)}


def _crops(session: Session, tracklet_ids: set[str]) -> dict[str, tuple[str, ...]]:
    rows = session.execute(
        select(EmbeddingRow.tracklet_id, EmbeddingRow.modality, EmbeddingRow.crop_image)
        .where(EmbeddingRow.tracklet_id.in_(sorted(tracklet_ids)), EmbeddingRow.crop_image.is_not(None))
        .order_by(EmbeddingRow.quality.desc(), EmbeddingRow.captured_at, EmbeddingRow.embedding_id)
    )
    best: dict[str, dict[str, str]] = {}
    for tracklet_id, modality, image in rows:
        best.setdefault(tracklet_id, {}).setdefault(modality, image or "")
    return {tracklet_id: tuple(image for _, image in sorted(own.items())) for tracklet_id, own in best.items()}


def _pictures(explanation: Explanation, tracklet_id: object) -> Iterator[str]:
    images = explanation.crops.get(tracklet_id) if isinstance(tracklet_id, str) else None
    if images:
        yield f"crops: {', '.join(images)}"


def _short(vehicle_id: str) -> str:
    return vehicle_id[:_SHORT]


def _decider(decision: Decision, correction: Correction | None) -> str:
    said = decision.said
    name = "the matcher" if said.decided_by == MATCHER else said.decided_by
    state = ", provisional: the tracklet's end may change it" if said.is_provisional else ""
    if correction is not None and said.reason == "undo" and said.decided_by != correction.made_by:
        return f"undo by {correction.made_by} at {_time(said.decided_at)}; {name}'s decision holds again{state}"
    reason = "confirmed where it was" if said.evidence.get("confirmed") else _REASONS.get(said.reason, said.reason)
    return f"by {name} at {_time(said.decided_at)}: {reason}{state}"


def _of_correction(correction: Correction | None) -> Iterator[str]:
    if correction is None:
        return
    others = len(correction.changes) - 1
    also = f", with {others} more tracklet{'' if others == 1 else 's'}" if others else ""
    taken_back = f", takes back correction {correction.undoes}" if correction.undoes else ""
    undone = f", taken back by correction {correction.undone_by}" if correction.undone_by else ""
    yield f"correction {correction.correction_id} ({correction.kind} by {correction.made_by}){also}{taken_back}{undone}"
    if correction.note:
        yield f"note: {correction.note}"


def _evidence(decision: Decision, explanation: Explanation) -> Iterator[str]:
    said, evidence = decision.said, decision.said.evidence
    if evidence.get("agrees") == MATCHER:
        yield "the tracklet has ended, and the matcher agrees:"
    if evidence.get("upheld"):
        instead = _said_id(evidence.get("instead_of"))
        yield f"the tracklet has ended: what had been said holds{instead and f', where the matcher had {instead}'}"
    if evidence.get("confirmed"):
        yield "what had been weighed:"
    if rule := evidence.get("rule"):
        yield "rule: " + _LONG_IDS.sub(r"\1", str(rule))
    yield from _weights(decision)
    candidates = evidence.get("candidates")
    if isinstance(candidates, list):
        for number, candidate in enumerate(candidates, start=1):
            if isinstance(candidate, dict):
                yield from _candidate(number, candidate, said.vehicle_id, explanation)
    else:
        # As decisions were written before candidates were kept one by one.
        yield from _listed(_terms(evidence, is_same_view=False))


def _weights(decision: Decision) -> Iterator[str]:
    said, evidence = decision.said, decision.said.evidence
    candidates = evidence.get("candidates")
    considered = _number(evidence, "considered") or (candidates if isinstance(candidates, int) else None)
    whole = "" if evidence.get("halved") else " as summed"
    yield from _listed(
        [
            _said(f"score {{:+.2f}} log-odds{whole}", said.score)
            + _said(" ({:.1%})", probability(halved(said.score, evidence))),
            _said("ahead of the next by {:.2f}", said.margin),
            _said("{:.0f} vehicles weighed", considered),
        ]
    )
    yield from _listed(
        [
            f"bands {said.modality_pair}" if said.modality_pair else "",
            _gap(said.transit_s, "{:.1f} s from the tracklet nearest in time"),
            f"embedder {said.model_id}" if said.model_id else "",
        ]
    )


def _candidate(number: int, candidate: Mapping[str, Any], chosen: str, explanation: Explanation) -> Iterator[str]:
    vehicle = str(candidate.get("vehicle_id", "?"))
    odds = [
        _said("{:.1%}", _number(candidate, "probability")),
        _said("{:+.2f} log-odds", _number(candidate, "log_odds")),
    ]
    sure = ", ".join(odd for odd in odds if odd)
    mark = " (chosen)" if vehicle == chosen else ""
    yield f"{number}. vehicle {_short(vehicle)}{mark}{f': {sure}' if sure else ''}"
    yield from (f"   {line}" for line in _sum(candidate))
    nearest, camera = candidate.get("tracklet_id"), candidate.get("camera")
    terms = ", ".join(term for term in _terms(candidate, is_same_view=camera == explanation.camera) if term)
    if nearest:
        yield f"   nearest in time: {nearest}{f' at {camera}' if camera else ''}{f': {terms}' if terms else ''}"
    elif terms:
        yield f"   {terms}"
    yield from (f"   {line}" for line in _pictures(explanation, nearest))


def _sum(candidate: Mapping[str, Any]) -> Iterator[str]:
    """How the log-odds came of the terms; nothing of rows that don't tell."""
    summed, tracklets = _number(candidate, "summed"), _number(candidate, "tracklets")
    if summed is None or tracklets is None:
        return
    if tracklets > 1:
        yield (
            f"sum over the nearest of its {tracklets:.0f} tracklets {summed:+.2f}, "
            "halved because they are not independent"
        )
    elif abs(summed - _together(candidate)) <= _ROUNDING:
        yield f"sum of what follows {summed:+.2f}, halved because its parts are not independent"
    else:
        yield f"sum {summed:+.2f}, halved; looks or the time between settle it, not all of what follows counts"


def _together(candidate: Mapping[str, Any]) -> float:
    return sum(_number(candidate, name) or 0.0 for name in ("appearance", "vehicle_class", "transit", "prior"))


def _terms(evidence: Mapping[str, Any], *, is_same_view: bool) -> list[str]:
    """What speaks for and against, each in nats; they add up."""
    similarity = _said("similarity {:.3f}", _number(evidence, "similarity"))
    modalities = evidence.get("modalities")
    compared = ", ".join(part for part in (similarity, modalities if isinstance(modalities, str) else "") if part)
    looks = _said("looks {:+.2f}", _number(evidence, "appearance"))
    place = _said(
        ("the same view again" if is_same_view else "time and place") + " {:+.2f}", _number(evidence, "transit")
    )
    told = [
        _gap(_number(evidence, "transit_s"), "{:.1f} s between"),
        _said("of which {:+.2f} from standing on the same spot", _number(evidence, "co_visibility")),
    ]
    about = ", ".join(part for part in told if part)
    return [
        f"{looks} ({compared})" if looks and compared else looks or compared,
        _said("class {:+.2f}", _number(evidence, "vehicle_class")),
        f"{place} ({about})" if place and about else place,
        _said("any pair {:+.2f}", _number(evidence, "prior")),
    ]


def _gap(seconds: float | None, words: str) -> str:
    """Seconds between two tracklets, which are negative while both are seen."""
    if seconds is None:
        return ""
    return words.format(seconds) if seconds >= 0 else f"in both views for {-seconds:.1f} s"


def _said_id(vehicle_id: object) -> str:
    return f"vehicle {_short(vehicle_id)}" if isinstance(vehicle_id, str) else ""


def _listed(parts: list[str]) -> Iterator[str]:
    present = [part for part in parts if part]
    if present:
        yield ", ".join(present)


def _said(words: str, value: float | None) -> str:
    return "" if value is None else words.format(value)


def _number(evidence: Mapping[str, Any], name: str) -> float | None:
    """A number of the JSON; None where there is none, or something else."""
    value = evidence.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
