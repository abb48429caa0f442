"""Who is in whose gallery, and what each direction makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reid import retrieval
from reid.datasets import Sample
from reid.errors import DatasetError
from reid.modality import Modality
from reid.protocols import (
    Labels,
    Protocol,
    average_tracklets,
    protocols_for,
    refuse_unless_allowed,
    removed_pairs,
)
from reid.rankers import EmbeddingRanker
from reid.retrieval import best_matches, directions, evaluate, evaluate_ranker

VISIBLE, THERMAL = Modality.VISIBLE, Modality.THERMAL


def sample(vehicle: str, name: str = "a.png", modality: Modality = VISIBLE, **known: Any) -> Sample:  # noqa: ANN401
    return Sample(Path(name), vehicle, modality, **known)


def removed(samples: list[Sample], protocol: Protocol) -> list[list[bool]]:
    """What the first sample's gallery, all samples, leaves out: one row."""
    found = removed_pairs(Labels.of(samples), protocol, np.array([0]), np.arange(len(samples)))
    return [[bool(value) for value in row] for row in found]


def unit(rows: list[list[float]]) -> NDArray[np.float32]:
    vectors = np.array(rows, dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


# --- What protocols leave out.


def test_protocols_leave_out_what_they_name() -> None:
    samples = [
        sample("1", scene="s1", camera="c1"),
        sample("1", scene="s1", camera="c2"),
        sample("1", scene="s2", camera="c1"),
        sample("2", scene="s1", camera="c1"),
        sample("1", scene="s2", camera="c2"),
    ]
    assert removed(samples, Protocol.ALL) == [[True, False, False, False, False]]
    assert removed(samples, Protocol.SAME_SCENE) == [[True, True, False, False, False]]
    assert removed(samples, Protocol.SAME_CAMERA) == [[True, False, True, False, False]]
    assert removed(samples, Protocol.TRACKLETS) == [[True, False, True, True, False]]


def test_a_view_stands_for_a_camera_that_is_not_known() -> None:
    samples = [sample("1", view="left"), sample("1", view="left"), sample("1", view="right")]
    assert removed(samples, Protocol.SAME_CAMERA) == [[True, True, False]]


def test_a_query_that_lies_in_the_gallery_too_is_itself() -> None:
    # As in MSVR310: the query folder holds copies of gallery pictures, one name in all bands.
    query = sample("1", "query3/0001/vis/x.jpg", role="query")
    copies = [
        sample("1", "test/0001/vis/x.jpg", role="gallery"),
        sample("1", "test/0001/vis/y.jpg", role="gallery"),
        sample("1", "test/0001/th/x.jpg", THERMAL, role="gallery"),
        sample("2", "test/0002/vis/x.jpg", role="gallery"),
    ]
    assert removed([query, *copies], Protocol.ALL) == [[True, True, False, False, False]]


def test_equal_names_in_a_set_without_roles_are_two_pictures() -> None:
    samples = [sample("1", "cam1/000.png"), sample("1", "cam2/000.png")]
    assert removed(samples, Protocol.ALL) == [[True, False]]


def test_vehicles_of_two_sites_are_two() -> None:
    labels = Labels.of([sample("1", site="north"), sample("1", site="south"), sample("1", site="north")])
    assert labels.vehicle.tolist() == [0, 1, 0]


def test_protocols_are_those_that_every_picture_allows() -> None:
    known = [sample("1", scene="s", camera="c"), sample("2", scene="s", view="left")]
    assert protocols_for(known) == [Protocol.ALL, Protocol.SAME_SCENE, Protocol.SAME_CAMERA]
    assert protocols_for([*known, sample("3", "b.png")]) == [Protocol.ALL]
    with pytest.raises(DatasetError, match=r"b\.png: protocol same_scene needs a scene"):
        refuse_unless_allowed([*known, sample("3", "b.png")], Protocol.SAME_SCENE)


# --- Tracklets.


def test_a_tracklet_is_the_mean_of_crops_spread_over_it() -> None:
    samples = [sample("1", f"{index}.png", camera="c1") for index in range(5)] + [sample("1", camera="c2")]
    vectors = unit([[1, 0], [9, 9], [0, 1], [9, 9], [-1, 0], [1, 1]])
    made = average_tracklets(vectors, samples, 1)
    assert made.rows.tolist() == [2, 5]
    np.testing.assert_allclose(made.vectors, vectors[[2, 5]], rtol=1e-6)
    made = average_tracklets(vectors, samples[:5], 99)
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, rtol=1e-6)


def test_bands_of_one_camera_make_two_tracklets() -> None:
    samples = [sample("1", camera="c1"), sample("1", modality=THERMAL, camera="c1")]
    assert len(average_tracklets(unit([[1, 0], [0, 1]]), samples, 5).rows) == 2


def test_a_tracklet_needs_a_camera() -> None:
    with pytest.raises(DatasetError, match=r"a\.png: protocol tracklets needs a camera"):
        average_tracklets(unit([[1, 0]]), [sample("1")], 3)


# --- Directions and their scores.


def four() -> tuple[NDArray[np.float32], list[Sample]]:
    """Two vehicles in two bands; the second one's thermal picture looks like the first vehicle."""
    samples = [sample(v, f"{v}{m}.png", m, vehicle_class=k) for v, k in (("1", "car"), ("2", "bus")) for m in BANDS]
    return unit([[1, 0], [1, 0.1], [0, 1], [1, 0.05]]), samples


BANDS = (VISIBLE, THERMAL)


def test_every_direction_is_scored_and_a_query_without_a_match_is_counted() -> None:
    results = {(r.query, r.gallery): r for r in evaluate(*four(), Protocol.ALL)}
    assert results.keys() == {(a, b) for a in BANDS for b in BANDS}
    within = results[VISIBLE, VISIBLE].scores
    assert (within.queries, within.excluded, within.mean_ap) == (0, 2, 0.0)
    # Vehicle 1's thermal picture is second to vehicle 2's; vehicle 2's is second to vehicle 1's.
    assert results[VISIBLE, THERMAL].scores.mean_ap == 0.5
    assert results[THERMAL, VISIBLE].scores.average_precisions.tolist() == [1.0, 0.5]
    assert results[THERMAL, VISIBLE].scores.rows.tolist() == [1, 3]


def test_within_a_class_another_class_is_no_rival() -> None:
    results = {(r.query, r.gallery): r for r in evaluate(*four(), Protocol.ALL)}
    within = results[VISIBLE, THERMAL].within_class
    assert within is not None
    assert (within.queries, within.mean_ap, results[VISIBLE, THERMAL].scores.mean_ap) == (2, 1.0, 0.5)


def test_without_classes_there_are_no_figures_within_them() -> None:
    vectors, samples = four()
    samples[3] = replace(samples[3], vehicle_class="")
    results = {(r.query, r.gallery): r for r in evaluate(vectors, samples, Protocol.ALL)}
    assert results[VISIBLE, THERMAL].within_class is None
    assert results[VISIBLE, THERMAL].record()["within_class_mAP"] is None
    assert results[VISIBLE, VISIBLE].within_class is not None


def test_roles_and_distractors_say_who_asks_whom() -> None:
    samples = [sample("1", role="query"), sample("1", role="gallery"), sample("1"), sample("2", modality=THERMAL)]
    found = {(d.query, d.gallery): (d.rows.tolist(), d.columns.tolist()) for d in directions(samples)}
    assert found[VISIBLE, VISIBLE] == ([0, 2], [1, 2])
    fewer = directions(samples, np.array([True, True, False, False]))
    assert [(d.query, d.gallery, d.rows.tolist()) for d in fewer] == [(VISIBLE, b, [0]) for b in BANDS]


def test_blocks_of_queries_change_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    samples = [sample(str(i % 7), f"{i}.png", BANDS[i % 2], vehicle_class=str(i % 7 % 2)) for i in range(60)]
    vectors = unit(rng.normal(size=(60, 4)).tolist())
    whole = [result.record() for result in evaluate(vectors, samples, Protocol.ALL)]
    monkeypatch.setattr(retrieval, "BLOCK_PAIRS", 100)
    ranked: list[int] = []
    ranker = EmbeddingRanker(vectors)
    results = evaluate_ranker(ranker, samples, Protocol.ALL, directions(samples), ranked.append)
    assert (sum(ranked), max(ranked)) == (120, 3)
    same = [{**r.record(), "ms_per_query": w["ms_per_query"]} for r, w in zip(results, whole, strict=True)]
    assert same == whole


def test_a_record_has_the_promised_keys_first_and_its_intervals() -> None:
    record = evaluate(*four(), Protocol.ALL)[1].record()
    promised = "ranker query gallery protocol queries excluded mAP mINP rank1 rank5 rank10 rank20 ms_per_query"
    assert list(record)[:13] == promised.split()
    assert (record["ranker"], record["query"], record["gallery"]) == ("embedding", "visible", "thermal")
    assert record["bytes_per_query"] == 8
    assert (record["mAP_low"], record["mAP"], record["mAP_high"]) == (0.5, 0.5, 0.5)
    empty = evaluate(*four(), Protocol.ALL)[0].record()
    assert (empty["queries"], empty["mAP"], empty["mAP_low"]) == (0, 0.0, None)


def test_a_list_starts_with_the_best_and_leaves_out_what_the_protocol_does() -> None:
    vectors, samples = four()
    samples.append(sample("1", "more.png"))
    vectors = np.concatenate([vectors, unit([[1, 0.5]])])
    direction = next(d for d in directions(samples) if (d.query, d.gallery) == (VISIBLE, VISIBLE))
    assert best_matches(EmbeddingRanker(vectors), samples, Protocol.ALL, direction, 0).tolist() == [4, 2]
    assert best_matches(EmbeddingRanker(vectors), samples, Protocol.ALL, direction, 0, count=1).tolist() == [4]
