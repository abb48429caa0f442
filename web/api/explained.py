"""What a decision and a correction look like in an answer."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field

from storage.answers import halved, probability
from web.api.schemas import Answer, CameraName, ClassName, Probability, TrackletName, VehicleName, at

if TYPE_CHECKING:
    from storage.explanation import Explanation
    from storage.history import Decision
    from web.services import Services

PICTURES = Field(description="Addresses of its best crops, one of each band; good for some minutes.")


class ChangeMade(Answer):
    """What a correction did to one tracklet."""

    tracklet_id: TrackletName
    before: str | None = Field(description="Whose it was; null where that had not been decided.")
    after: str = Field(description="Whose it was then; the same where it was only confirmed.")


class CorrectionMade(Answer):
    """Decisions that were changed together."""

    correction_id: int = Field(description="Its number; later ones are higher.", ge=1, examples=[12])
    kind: str = Field(description="`merge`, `split`, `move`, `confirm` or `undo`.", examples=["merge"])
    made_by: str = Field(description="`matcher`, or a person's name.", examples=["anna"])
    made_at: datetime = at("Event time for the matcher, the clock for a person.")
    note: str = Field(description="Why, in that person's words.", examples=["same dent"])
    undoes: int | None = Field(description="The correction that it takes back, or null.")
    undone_by: int | None = Field(description="The correction that takes it back, or null.")
    changes: list[ChangeMade] = Field(description="By tracklet.")


class Candidate(Answer):
    """A vehicle that was weighed. What speaks for it is in nats: +1 is 2.7 times as likely."""

    vehicle_id: str | None = Field(description="Its id.")
    tracklet_id: str | None = Field(description="Its tracklet that was nearest in time.")
    camera: str | None = Field(description="Where that was.")
    is_chosen: bool = Field(description="Whether the tracklet was given to it.")
    probability: float | None = Field(description="As the matcher took it, 0-1.", examples=[0.574])
    log_odds: float | None = Field(description="The same as log-odds.", examples=[0.298])
    similarity: float | None = Field(description="Cosine of the looks, bands' own directions taken off, -1 to 1.")
    modalities: str | None = Field(description="The bands compared.", examples=["near_infrared~visible"])
    appearance: float | None = Field(description="What looks say, in nats.")
    transit: float | None = Field(description="What time and place say, in nats.")
    transit_s: float | None = Field(description="Seconds between the two; below 0 while both were seen.")
    vehicle_class: float | None = Field(description="What the class says, in nats.")
    prior: float | None = Field(description="Of any such pair, in nats.")
    crops: list[str] = PICTURES


class DecisionMade(Answer):
    """One decision on the tracklet."""

    number: int = Field(description="Later ones are higher.", ge=1)
    vehicle_id: VehicleName
    is_current: bool = Field(description="Whether it holds.")
    is_provisional: bool = Field(description="Whether it was said before the tracklet ended, to be said again then.")
    reason: str = Field(description="In a word.", examples=["linked"])
    rule: str | None = Field(description="By what rule, or null.")
    decided_by: str = Field(description="`matcher`, or the person whose word it is.", examples=["matcher"])
    decided_at: datetime = at("Event time for the matcher, the clock for a person.")
    score: float | None = Field(description="Log-odds of the link, or null.")
    probability: Probability
    margin: float | None = Field(description="Ahead of the next best candidate, in nats; null without one.")
    modality_pair: str | None = Field(description="The bands compared, or null.")
    transit_s: float | None = Field(description="Seconds from the camera before, or null.")
    correction_id: int | None = Field(description="The correction that it is a part of, or null.")
    candidates: list[Candidate] = Field(description="Best first; those that were kept.")


class Why(Answer):
    """All that was decided on a tracklet."""

    tracklet_id: TrackletName
    camera: CameraName
    vehicle_class: ClassName
    started_at: datetime = at("First frame.")
    ended_at: datetime = at("Last frame so far.")
    end_reason: str | None = Field(description="Why it ended; null while it goes on.", examples=["lost"])
    camera_trouble: str | None = Field(description="What was wrong with the camera's picture meanwhile, or null.")
    crops: list[str] = PICTURES
    words: list[str] = Field(description="The whole in words, line by line.", examples=[["now: vehicle 034a91fd"]])
    decisions: list[DecisionMade] = Field(description="Latest first; none while it has no vehicle.")
    corrections: list[CorrectionMade] = Field(description="Those that decided on it, latest first.")


def why(services: Services, found: Explanation, words: list[str]) -> Why:
    """An explanation as it is answered.

    Args:
        services: To sign addresses of pictures with.
        found: The explanation.
        words: The same in words.
    """
    pictures = {
        tracklet_id: [services.links.picture(image) for image in images] for tracklet_id, images in found.crops.items()
    }
    latest_first = sorted(found.corrections.values(), key=lambda one: -one.correction_id)
    return Why(
        tracklet_id=found.tracklet_id,
        camera=found.camera,
        vehicle_class=found.vehicle_class,
        started_at=found.started_at,
        ended_at=found.ended_at,
        end_reason=found.end_reason,
        camera_trouble=found.camera_trouble,
        crops=pictures.get(found.tracklet_id, []),
        words=words,
        decisions=[_decision(decision, pictures) for decision in found.decisions],
        corrections=[CorrectionMade.model_validate(one) for one in latest_first],
    )


def _decision(decision: Decision, pictures: dict[str, list[str]]) -> DecisionMade:
    said = decision.said
    told = said.evidence.get("candidates")
    candidates = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return DecisionMade(
        number=decision.assignment_id,
        vehicle_id=said.vehicle_id,
        is_current=decision.is_current,
        is_provisional=said.is_provisional,
        reason=said.reason,
        rule=_text(said.evidence, "rule"),
        decided_by=said.decided_by,
        decided_at=said.decided_at,
        score=said.score,
        probability=probability(halved(said.score, said.evidence)),
        margin=said.margin,
        modality_pair=said.modality_pair,
        transit_s=said.transit_s,
        correction_id=decision.correction_id,
        candidates=[_candidate(one, said.vehicle_id, pictures) for one in candidates],
    )


def _candidate(told: dict[str, Any], chosen: str, pictures: dict[str, list[str]]) -> Candidate:
    numbers = ("probability", "log_odds", "similarity", "appearance", "transit", "transit_s", "vehicle_class", "prior")
    tracklet_id = _text(told, "tracklet_id")
    return Candidate(
        vehicle_id=_text(told, "vehicle_id"),
        tracklet_id=tracklet_id,
        camera=_text(told, "camera"),
        is_chosen=told.get("vehicle_id") == chosen,
        modalities=_text(told, "modalities"),
        crops=pictures.get(tracklet_id or "", []),
        **{name: _number(told, name) for name in numbers},
    )


def _text(told: dict[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) else None


def _number(told: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - a number or None, into fields of several types
    value = told.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
