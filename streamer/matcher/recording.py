"""How the matcher's decisions are written down: the same whether they follow from the bus or from a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.records import MATCHER, AssignmentRecord
from streamer.matcher.decision import Candidate, Decision, Outcome, Rule, honest, probability
from streamer.matcher.region import Region, as_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.writer import Writer


def record_decisions(decisions: Iterable[Decision], writer: Writer, *, model_id: str) -> None:
    """Writes decisions, provisional ones too.

    Args:
        decisions: In the order in which they were made.
        writer: Of the caller's transaction.
        model_id: The embedder whose vectors were compared.
    """
    for decision in decisions:
        writer.assign(_assignment(decision, model_id))


def record_outcome(outcome: Outcome, name: str, region: Region, writer: Writer, *, model_id: str) -> None:
    """Writes what a region has settled: its decisions, its corrections, and what it has learned by then.

    Args:
        outcome: Of `Region.settle`.
        name: The region's.
        region: The one that settled, and has not settled anything since.
        writer: Of the caller's transaction.
        model_id: The embedder whose vectors were compared.
    """
    record_decisions(outcome.decisions, writer, model_id=model_id)
    for correction in outcome.corrections:
        at = as_datetime(correction.decisions[0].decided_at)
        rows = [_assignment(decision, model_id) for decision in correction.decisions]
        writer.correct(correction.kind, rows, made_by=MATCHER, made_at=at)
    if outcome.settled_at is not None:
        writer.store_learned(name, region.learned(), as_datetime(outcome.settled_at))


def _assignment(decision: Decision, model_id: str) -> AssignmentRecord:
    own = decision.evidence
    weighed = {
        "rule": decision.rule,
        "considered": decision.considered,
        "candidates": [_told(candidate) for candidate in decision.candidates],
        # Rows from before have whole log-odds: whoever reads both must know which is which.
        "halved": True,
    }
    return AssignmentRecord(
        decision.tracklet_id,
        decision.vehicle_id,
        decision.reason,
        decision.is_provisional,
        None if decision.score is None else honest(decision.score),
        None if decision.margin is None else honest(decision.margin),
        own.modalities if own else None,
        own.transit_s if own else None,
        model_id,
        as_datetime(decision.decided_at),
        # What a person has said is not weighed, only made final: see `Writer.assign`.
        {"upheld": True} if decision.rule is Rule.SAID else weighed,
    )


def _told(candidate: Candidate) -> dict[str, str | float | None]:
    """A candidate as `python -m storage why` reads it."""
    evidence, log_odds = candidate.evidence, honest(candidate.log_odds)
    return {
        "vehicle_id": candidate.vehicle_id,
        "tracklet_id": candidate.tracklet_id,
        "camera": candidate.camera,
        "tracklets": candidate.tracklets,
        "summed": round(candidate.log_odds, 3),
        "log_odds": round(log_odds, 3),
        "probability": round(probability(log_odds), 4),
        "appearance": round(evidence.appearance, 3),
        "similarity": None if evidence.similarity is None else round(evidence.similarity, 4),
        "modalities": evidence.modalities,
        "transit": round(evidence.transit, 3),
        "transit_s": round(evidence.transit_s, 3),
        "co_visibility": None if evidence.co_visibility is None else round(evidence.co_visibility, 3),
        "vehicle_class": round(evidence.vehicle_class, 3),
        "prior": evidence.prior,
    }
