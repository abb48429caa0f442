from __future__ import annotations

import itertools

import numpy as np
import pytest

from streamer.config import CropsConfig
from streamer.crops import encode_crop
from streamer.sighting_codec import decode, encode
from streamer.sightings import EndReason, Sighting, SightingKind
from streamer.tracklet_book import FIRST_WITHOUT_CROP_S, Question
from streamer.tracklets import FIRST_PERIOD_S, LONGEST_PERIOD_S
from tests.streamer.book_builders import FPS, Drive, Run, approaching, at, drive, rules, standing, tokens_of

TWO_VEHICLES = [
    Drive(1, approaching(), range(40)),
    Drive(2, standing(), range(10, 70)),
]


def said(run: Run) -> list[tuple[str, str, bytes, list[bytes]]]:
    """What the run told, without the order in which tracklets took turns."""
    return sorted(
        (
            s.sighting_id,
            s.kind.value,
            s.path.boxes.tobytes(),
            [e.vector.tobytes() + (e.tokens or b"") for e in s.embeddings],
        )
        for s in run.sightings
    )


@pytest.mark.parametrize(
    "delay",
    [lambda _: 7, lambda question: 40 - question.id, lambda _: 10**6, lambda question: (question.id * 7919) % 31],
    ids=["late", "in reverse", "only at the end", "scattered"],
)
def test_the_embedder_s_delay_changes_nothing_of_what_is_said(delay: object) -> None:
    assert said(drive(TWO_VEHICLES, 80, delay=delay)) == said(drive(TWO_VEHICLES, 80))  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [0, 9, 10**6])
def test_each_tracklet_tells_first_then_updates_then_end_and_its_path_once(delay: int) -> None:
    run = drive(TWO_VEHICLES, 80, delay=lambda _: delay)

    for number, vehicle in ((1, TWO_VEHICLES[0]), (2, TWO_VEHICLES[1])):
        told = run.of(number)
        assert [s.sequence for s in told] == list(range(len(told)))
        assert told[0].kind is SightingKind.FIRST
        assert told[-1].kind is SightingKind.END
        assert {s.kind for s in told[1:-1]} <= {SightingKind.UPDATE}
        assert np.concatenate([s.path.frames for s in told]).tolist() == list(vehicle.frames)


def test_every_sighting_is_fit_for_the_wire() -> None:
    for sighting in drive(TWO_VEHICLES, 80).sightings:
        decoded = decode(encode(sighting))
        assert isinstance(decoded, Sighting)
        assert decoded.sighting_id == sighting.sighting_id


@pytest.mark.parametrize("delay", [0, 12])
def test_nothing_comes_after_a_watermark_that_it_was_promised_before(delay: int) -> None:
    run = drive(TWO_VEHICLES, 80, delay=lambda _: delay)

    assert run.watermarks == sorted(run.watermarks)
    for watermark, count in zip(run.watermarks, run.published, strict=True):
        assert all(sighting.occurred_at > watermark for sighting in run.sightings[count:])


def test_a_vehicle_that_is_gone_too_long_has_left() -> None:
    run = drive([Drive(1, standing(), range(20))], 60)

    assert run.sightings[-1].end_reason is EndReason.LEFT
    assert run.sightings[-1].occurred_at == at(19)
    assert run.book.is_settled


def test_a_number_that_comes_back_after_its_end_is_a_new_tracklet() -> None:
    run = drive([Drive(1, standing(), [*range(10), *range(40, 50)])], 60)

    assert {s.number for s in run.sightings} == {1, 2}
    assert len({s.sighting_id for s in run.sightings}) == len(run.sightings)


@pytest.mark.parametrize(
    ("vehicle", "changes"),
    [
        (Drive(1, standing(), range(2)), {}),
        (Drive(1, standing(size=12), range(30)), {"min_box_height_px": 16}),
        (
            Drive(1, standing(), range(30)),
            {"ignore": (np.array([[0, 0], [320, 0], [320, 240], [0, 240]], np.float32),)},
        ),
    ],
    ids=["too short", "too low", "in an ignored area"],
)
def test_what_is_not_followed_is_counted_and_never_told(vehicle: Drive, changes: dict[str, object]) -> None:
    run = drive([vehicle], 60, book_rules=rules(**changes))

    assert run.sightings == []
    assert run.questions == []
    assert (run.book.begun, run.book.ignored) == (1, 1)


def test_only_the_part_outside_an_ignored_area_is_told() -> None:
    left_half = np.array([[0, 0], [160, 0], [160, 240], [0, 240]], np.float32)
    driving = Drive(1, lambda frame: (4.0 * frame, 80, 4.0 * frame + 60, 140), range(60))

    run = drive([driving], 90, book_rules=rules(ignore=(left_half,)))

    frames = np.concatenate([s.path.frames for s in run.sightings])
    assert frames[0] == 33
    assert run.sightings[0].started_at == at(33)
    assert run.sightings[-1].occurred_at == at(59)


def test_a_vehicle_too_small_for_a_crop_is_still_told_of() -> None:
    run = drive([Drive(1, standing(size=20), range(60))], 80)

    assert run.questions == []
    assert [s.kind for s in run.sightings] == [SightingKind.FIRST, SightingKind.END]
    assert run.sightings[0].occurred_at == at(int(FIRST_WITHOUT_CROP_S * FPS))


def test_dropped_crops_leave_sightings_without_vectors() -> None:
    run = drive(TWO_VEHICLES, 80, drops=True)

    assert {s.sighting_id for s in run.sightings} == {s.sighting_id for s in drive(TWO_VEHICLES, 80).sightings}
    assert all(s.embeddings == () and s.model_id == "" for s in run.sightings)


def test_the_end_carries_the_weighted_mean_and_the_best_picture() -> None:
    run = drive([Drive(1, approaching(), range(60))], 80)
    told = run.of(1)
    pieces = [embedding for s in told[:-1] for embedding in s.embeddings]
    (last,) = told[-1].embeddings

    assert len(run.questions) >= len(pieces) > 1
    assert last.quality >= max(piece.quality for piece in pieces)
    assert last.crop_jpeg
    assert float(np.linalg.norm(last.vector)) == pytest.approx(1, abs=1e-5)
    assert all(float(piece.vector @ last.vector) < 1 - 1e-6 for piece in pieces)


def test_points_are_the_best_picture_s_and_updates_carry_none() -> None:
    run = drive([Drive(1, approaching(), range(60))], 80)
    told = run.of(1)
    updates = [embedding for s in told if s.kind is SightingKind.UPDATE for embedding in s.embeddings]
    (first,), (last,) = told[0].embeddings, told[-1].embeddings

    best = [question for question in run.questions if question.is_best]
    assert first.tokens == tokens_of(run.questions[0].image)
    assert last.tokens == tokens_of(best[-1].image)
    assert encode_crop(best[-1].image, CropsConfig().jpeg_quality) == last.crop_jpeg
    assert updates
    assert all(update.tokens is None for update in updates)


def test_a_worse_picture_needs_no_points() -> None:
    leaving = approaching()
    run = drive([Drive(1, lambda frame: leaving(60 - frame), range(60))], 80)

    assert [question.is_best for question in run.questions].count(True) < len(run.questions)
    (last,) = run.of(1)[-1].embeddings
    best = [question for question in run.questions if question.is_best][-1]
    assert last.tokens == tokens_of(best.image)


def test_crops_keep_their_distance() -> None:
    run = drive([Drive(1, approaching(), range(80))], 100, book_rules=rules(crops=CropsConfig(min_interval_s=1.5)))

    gaps = np.diff(run.asked_at[:-1])
    assert len(gaps) > 1
    assert (gaps >= 15).all()


def test_a_standing_vehicle_is_told_of_ever_less_often() -> None:
    run = drive([Drive(1, standing(), range(6000))], 6010)

    updates = [s for s in run.sightings if s.kind is SightingKind.UPDATE and not s.embeddings]
    told = [run.sightings[0], *updates]
    periods = [(later.occurred_at - earlier.occurred_at).total_seconds() for earlier, later in itertools.pairwise(told)]
    assert periods[0] == pytest.approx(FIRST_PERIOD_S, abs=0.2)
    assert all(later >= earlier for earlier, later in itertools.pairwise(periods))
    assert periods[-1] > 8 * FIRST_PERIOD_S
    assert max(periods) <= LONGEST_PERIOD_S + 1
    assert run.sightings[-1].occurred_at == at(5999)


def test_a_path_never_outgrows_a_message() -> None:
    restless = Drive(1, lambda frame: (100 + 40 * (frame % 2), 80, 160 + 40 * (frame % 2), 140), range(3000))
    run = drive([restless], 3010, book_rules=rules(max_seconds_lost=1.0))

    assert sum(len(s.path) for s in run.sightings) == 3000
    assert all(encode(sighting) for sighting in run.sightings)


def test_frames_that_are_skipped_only_let_time_pass() -> None:
    seen = [frame for frame in range(40) if frame % 8 == 0]
    run = drive([Drive(1, standing(), seen)], 60, skipped=[frame for frame in range(40) if frame % 8])

    assert np.concatenate([s.path.frames for s in run.sightings]).tolist() == seen
    assert {s.number for s in run.sightings} == {1}


def test_context_pictures_are_named_in_the_sightings_that_follow() -> None:
    run = drive([Drive(7, approaching(), range(30))], 50)

    pictures = run.book.take_pictures()
    assert pictures
    assert {picture.path for picture in pictures} == {"context/cam1/session/1.jpg"}
    assert all(picture.jpeg.startswith(b"\xff\xd8") for picture in pictures)
    assert all(s.context_image == "context/cam1/session/1.jpg" for s in run.sightings)


def test_an_answer_to_a_question_never_asked_is_an_error() -> None:
    run = drive([], 1)

    with pytest.raises(KeyError):
        run.book.answer(99, None)


def test_questions_are_of_source_pixels_around_the_box() -> None:
    run = drive([Drive(1, standing(), range(20))], 40)

    question: Question = run.questions[0]
    assert question.image.shape[0] == pytest.approx(60 * 1.06, abs=2)
