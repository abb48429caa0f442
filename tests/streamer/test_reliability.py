from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from streamer.reliability import draw, reliability, table


def test_a_bin_tells_what_was_said_and_what_is() -> None:
    # Four said 0.75 of which three are, one said 0.5 that is not.
    log_odds = np.array([np.log(3)] * 4 + [0.0])
    found = reliability(log_odds, np.array([True, True, True, False, False]), evenly=False)

    assert found.predicted.tolist() == pytest.approx([0.5, 0.75])
    assert found.observed.tolist() == pytest.approx([0.0, 0.75])
    assert found.same.tolist() == [0, 3]
    assert found.different.tolist() == [1, 1]
    assert found.error == pytest.approx(0.2 * 0.5)
    assert found.excess == pytest.approx(0.1)


def test_at_even_odds_many_of_one_kind_weigh_no_more_than_few_of_the_other() -> None:
    rng = np.random.default_rng(0)
    # Normal densities of one width: this line is their log-likelihood ratio.
    same, different = rng.normal(0.6, 0.1, 500), rng.normal(0.4, 0.1, 50_000)
    similarity = np.concatenate([same, different])
    log_odds, is_same = 20 * similarity - 10, np.arange(len(similarity)) < 500

    assert reliability(log_odds, is_same, evenly=True).error < 0.03
    assert reliability(log_odds, is_same, evenly=False).error > 0.1


def test_it_is_shown_as_a_table_and_as_a_picture(tmp_path: Path) -> None:
    found = reliability(np.array([2.0, -2.0]), np.array([True, False]), evenly=True)
    console = Console(record=True, width=100)
    console.print(table("heat~colour", found))
    draw(tmp_path / "r.png", {"a": found, "b": found})

    assert "heat~colour: error 0.119" in console.export_text()
    assert (tmp_path / "r.png").stat().st_size > 1000
