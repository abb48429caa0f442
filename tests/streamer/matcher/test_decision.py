import pytest

from streamer.matcher.decision import honest, probability


def test_what_is_written_down_is_less_sure_than_the_sum_and_on_the_same_side() -> None:
    assert 0.5 < probability(honest(4.0)) < probability(4.0)
    assert honest(0.0) == 0.0
    assert honest(-4.0) == pytest.approx(-honest(4.0))


def test_a_probability_stays_one_however_large_the_log_odds() -> None:
    assert probability(1e6) == pytest.approx(1.0)
    assert probability(-1e6) == pytest.approx(0.0)
