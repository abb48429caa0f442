"""Why a tracklet belongs to its vehicle, in words: who decided, when, by what, and what had been said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.answers import probability
from storage.export import utc_text
from storage.history import Correction, Decision, corrections, decisions
from storage.lookup import find_tracklet
from storage.models import AssignmentRow
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
    "undo": "a correction taken back",
}


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
    """

    tracklet_id: str
    camera: str
    vehicle_class: str
    started_at: datetime
    ended_at: datetime
    end_reason: str | None
    decisions: tuple[Decision, ...]
    corrections: dict[int, Correction]


def explain(session: Session, tracklet_id: str) -> Explanation:
    """All that was decided on the tracklet of that id, or on the only one whose id begins or ends so.

    Raises:
        TrackletNotFoundError: None, or several.
    """
    found = find_tracklet(session, tracklet_id)
    made = decisions(session, AssignmentRow.tracklet_id == found.tracklet_id)
    return Explanation(
        found.tracklet_id,
        found.camera,
        found.vehicle_class,
        found.started_at,
        found.ended_at,
        found.end_reason,
        tuple(reversed(made)),
        {one.correction_id: one for one in corrections(session, tracklet_id=found.tracklet_id)},
    )


def in_words(explanation: Explanation) -> Iterator[str]:
    """The explanation, line by line."""
    end = f"ended: {explanation.end_reason}" if explanation.end_reason else "it goes on"
    seen = f"{_time(explanation.started_at)} to {_time(explanation.ended_at)}"
    yield f"{explanation.tracklet_id}: {explanation.vehicle_class} at {explanation.camera}, {seen}, {end}"
    if not explanation.decisions:
        yield "It has no vehicle yet."
    for index, decision in enumerate(explanation.decisions):
        yield ""
        yield f"{'now' if index == 0 else 'before that'}: vehicle {decision.said.vehicle_id}"
        correction = explanation.corrections.get(decision.correction_id or 0)
        lines = [_decider(decision), *_of_correction(correction), *_evidence(decision)]
        yield from (f"  {line}" for line in lines)


def _time(moment: datetime) -> str:
    return utc_text(moment, "milliseconds")


def _decider(decision: Decision) -> str:
    said = decision.said
    name = "the matcher" if said.decided_by == MATCHER else said.decided_by
    state = ", provisional: the tracklet's end may change it" if said.is_provisional else ""
    reason = f"{said.reason}, {_REASONS[said.reason]}" if said.reason in _REASONS else said.reason
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


def _evidence(decision: Decision) -> Iterator[str]:
    said, evidence = decision.said, decision.said.evidence
    if evidence.get("agrees") == MATCHER:
        yield "the tracklet has ended, and the matcher agrees:"
    if evidence.get("upheld"):
        instead = _said_id(evidence.get("instead_of"))
        yield f"the tracklet has ended: what had been said holds{instead and f', where the matcher had {instead}'}"
    if evidence.get("confirmed"):
        yield "confirmed where it was; what had been weighed:"
    if rule := evidence.get("rule"):
        yield f"rule: {rule}"
    yield from _weights(decision)
    candidates = evidence.get("candidates")
    if isinstance(candidates, list):
        for number, candidate in enumerate(candidates, start=1):
            yield from _candidate(number, candidate, said.vehicle_id)
    else:
        # As decisions were written before candidates were kept one by one.
        yield from _listed(_terms(evidence))


def _weights(decision: Decision) -> Iterator[str]:
    said, evidence = decision.said, decision.said.evidence
    candidates = evidence.get("candidates")
    considered = _number(evidence, "considered") or (candidates if isinstance(candidates, int) else None)
    prior = _number(evidence, "prior")
    yield from _listed(
        [
            _said("score {:+.2f} log-odds", said.score) + _said(" ({:.1%})", probability(said.score)),
            _said("ahead of the next by {:.2f}", said.margin),
            _said("{:.0f} vehicles weighed", considered),
            _said("prior {:+.2f}", prior),
        ]
    )
    yield from _listed(
        [
            f"bands {said.modality_pair}" if said.modality_pair else "",
            _said("{:.1f} s from the camera before", said.transit_s),
            f"embedder {said.model_id}" if said.model_id else "",
        ]
    )


def _candidate(number: int, candidate: Any, chosen: str) -> Iterator[str]:  # noqa: ANN401 - whatever the JSON holds
    if not isinstance(candidate, dict):
        return
    vehicle = candidate.get("vehicle_id", "?")
    most_alike = f", most alike: {candidate['tracklet_id']}" if candidate.get("tracklet_id") else ""
    camera = f" at {candidate['camera']}" if candidate.get("camera") else ""
    odds = [
        _said("{:.1%}", _number(candidate, "probability")),
        _said("{:+.2f} log-odds", _number(candidate, "log_odds")),
    ]
    sure = ", ".join(odd for odd in odds if odd)
    mark = " (chosen)" if vehicle == chosen else ""
    yield f"{number}. vehicle {vehicle}{mark}{most_alike}{camera}{f': {sure}' if sure else ''}"
    if forbidden := candidate.get("forbidden"):
        yield f"   ruled out: {forbidden}"
    yield from (f"   {line}" for line in _listed(_terms(candidate)))


def _terms(evidence: Mapping[str, Any]) -> list[str]:
    """What speaks for and against, each in nats."""
    similarity = _said("similarity {:.3f}", _number(evidence, "similarity"))
    modalities = evidence.get("modalities")
    compared = ", ".join(part for part in (similarity, modalities if isinstance(modalities, str) else "") if part)
    looks = _said("looks {:+.2f}", _number(evidence, "appearance"))
    travelled = _said(" ({:.1f} s)", _number(evidence, "transit_s"))
    travel = _said("travel time {:+.2f}", _number(evidence, "transit"))
    return [
        f"{looks} ({compared})" if looks and compared else looks or compared,
        travel + travelled if travel else "",
        _said("in both views at one time {:+.2f}", _number(evidence, "co_visibility")),
        _said("class {:+.2f}", _number(evidence, "vehicle_class")),
        _said("points {:.3f}", _number(evidence, "points")),
    ]


def _said_id(vehicle_id: object) -> str:
    return f"vehicle {vehicle_id}" if isinstance(vehicle_id, str) else ""


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
