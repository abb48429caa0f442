"""Laws of the page that tells what the drills found."""

from tests.drills.report import PAGE, Finding, fill_in, unknown_drills

FINDING = Finding("kafka", "frozen 20 s", "full", "2026-01-02", {"lost": 0, "back_s": 1.8421})


def test_a_table_takes_the_place_of_the_one_before_and_nothing_else_changes() -> None:
    page = "a\n<!-- figures: kafka -->\nold\n<!-- end -->\nb\n<!-- figures: matcher -->\nkept\n<!-- end -->\n"
    filled = fill_in(page, [FINDING])
    assert "| frozen 20 s | lost 0, back_s 1.84 | full, 2026-01-02 |" in filled
    assert "old" not in filled
    assert filled.startswith("a\n")
    assert "\nb\n<!-- figures: matcher -->\nkept\n<!-- end -->\n" in filled
    assert fill_in(filled, [FINDING]) == filled


def test_a_drill_without_a_place_is_told() -> None:
    assert unknown_drills("<!-- figures: matcher -->\n<!-- end -->", [FINDING]) == ["kafka"]


def test_the_page_has_a_place_for_each_drill() -> None:
    drills = {path.stem.removeprefix("test_") for path in PAGE.parents[1].glob("tests/drills/test_*.py")} - {"report"}
    page = PAGE.read_text(encoding="utf-8")
    assert {drill for drill in drills if f"<!-- figures: {drill} -->" not in page} == set()
