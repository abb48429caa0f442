import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.modality import Modality
from streamer.modality_sensor import IrCutSensor, chroma_spread
from streamer.pictures import chroma
from tests.streamer.video_files import colours

DAY, NIGHT = 8.0, 0.3


def sensed(spreads: list[float], step_s: float = 0.1) -> list[Modality]:
    sensor = IrCutSensor()
    return [sensor.sense(spread, number * step_s) for number, spread in enumerate(spreads)]


def test_dusk_and_dawn_switch_once_each_after_the_hold() -> None:
    tags = sensed([DAY] * 10 + [NIGHT] * 20 + [DAY] * 20)
    expected = [Modality.VISIBLE] * 15 + [Modality.NEAR_INFRARED] * 20 + [Modality.VISIBLE] * 15
    assert tags == expected


def test_a_gray_moment_changes_nothing() -> None:
    assert set(sensed([DAY] * 5 + [NIGHT] * 5 + [DAY] * 5)) == {Modality.VISIBLE}


@settings(deadline=None)
@given(st.lists(st.floats(1.5, 2.5), min_size=1, max_size=100), st.sampled_from([DAY, NIGHT]))
def test_between_the_thresholds_nothing_switches(spreads: list[float], first: float) -> None:
    assert len(set(sensed([first, *spreads]))) == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), max_size=200))
def test_a_switch_is_never_sooner_than_the_hold(spreads: list[float]) -> None:
    tags = sensed(spreads)
    switches = [number for number in range(1, len(tags)) if tags[number] is not tags[number - 1]]
    assert all(later - earlier >= 5 for earlier, later in zip([0, *switches], switches, strict=False))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj422p", "yuv444p", "nv12", "yuv420p10le", "rgb24"])
def test_colour_is_seen_in_every_pixel_format_and_a_tint_is_none(pixel_format: str) -> None:
    coloured = av.VideoFrame.from_ndarray(colours(1)[0], format="rgb24").reformat(format=pixel_format)
    tinted = np.broadcast_to(np.array([150, 100, 140], np.uint8), (90, 162, 3))
    plain = av.VideoFrame.from_ndarray(np.ascontiguousarray(tinted), format="rgb24").reformat(format=pixel_format)
    assert chroma_spread(*chroma(coloured)) > 10
    assert chroma_spread(*chroma(plain)) < 1


def test_thresholds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="collapsed_below <= coloured_above"):
        IrCutSensor(collapsed_below=3, coloured_above=2)
