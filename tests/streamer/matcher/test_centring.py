from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from reid.modality import Modality
from streamer.matcher.centring import Centring
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import DIMENSION, looks, seen


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _dyed(camera: str, count: int, dye: int, seed: int, modality: Modality = Modality.VISIBLE) -> list[Tracklet]:
    """Vehicles of one camera, whose light has got into all of their looks."""
    rng = np.random.default_rng(seed)
    return [
        seen(f"{camera}/s/{n}", n, n + 1, _unit(2 * looks(dye) + rng.normal(0, 0.4, DIMENSION)), modality=modality)
        for n in range(count)
    ]


def test_what_a_camera_gives_to_all_of_its_vehicles_is_taken_out() -> None:
    day = _dyed("a", 200, dye=3, seed=0)
    centring = Centring({})
    before = float(day[0].vectors[Modality.VISIBLE] @ day[1].vectors[Modality.VISIBLE])

    centring.learn(day)

    after = [
        float(centring.centred(one, Modality.VISIBLE) @ centring.centred(other, Modality.VISIBLE))
        for one, other in zip(day[:50], day[50:100], strict=True)
    ]
    assert before > 0.5
    assert abs(np.mean(after)) < 0.1


def test_a_camera_of_which_little_was_seen_goes_by_the_modality() -> None:
    shared = 0.8 * looks(3)
    centring = Centring({Modality.VISIBLE: shared})
    (one,) = _dyed("a", 1, dye=3, seed=0)

    assert np.allclose(centring.centred(one, Modality.VISIBLE), _unit(one.vectors[Modality.VISIBLE] - shared))


def test_cameras_and_modalities_are_kept_apart() -> None:
    centring = Centring({})
    centring.learn(_dyed("a", 50, dye=3, seed=0))
    (elsewhere,), (by_heat,) = _dyed("b", 1, dye=3, seed=1), _dyed("a", 1, dye=3, seed=1, modality=Modality.THERMAL)

    for one, modality in ((elsewhere, Modality.VISIBLE), (by_heat, Modality.THERMAL)):
        assert np.allclose(centring.centred(one, modality), one.vectors[modality], atol=1e-6)


def test_centred_looks_have_unit_norm_and_a_look_that_is_all_shared_stays() -> None:
    centring = Centring({Modality.VISIBLE: looks(0)})
    plain, other = seen("a/s/1", 0, 1, looks(0)), seen("a/s/2", 0, 1, looks(1))

    assert np.isclose(np.linalg.norm(centring.centred(other, Modality.VISIBLE)), 1)
    assert np.array_equal(centring.centred(plain, Modality.VISIBLE), looks(0))


def test_light_that_changes_is_followed() -> None:
    centring = Centring({})
    centring.learn(_dyed("a", 400, dye=3, seed=0))
    evening = _dyed("a", 1200, dye=5, seed=1)

    centring.learn(evening)

    left = [float(centring.centred(one, Modality.VISIBLE)[5]) for one in evening[:100]]
    assert abs(np.mean(left)) < 0.15


def test_centring_goes_on_where_another_has_stopped() -> None:
    day = _dyed("a", 700, dye=3, seed=0)
    straight, first, second = Centring({}), Centring({}), Centring({})
    straight.learn(day)

    first.learn(day[:350])
    second.load(json.loads(json.dumps(first.to_json())))
    second.learn(day[350:])

    assert second.to_json() == straight.to_json()
