import math

from streamer.matcher.watermarks import Watermarks


def _watermarks(*cameras: str) -> Watermarks:
    return Watermarks(cameras, silence_s=30.0)


def test_the_slowest_camera_decides() -> None:
    marks = _watermarks("a", "b")
    marks.promise("a", "1", 110.0, is_finished=False)
    marks.promise("b", "1", 104.0, is_finished=False)

    assert marks.region == 104.0


def test_a_camera_that_has_said_nothing_holds_the_others_at_the_first_moment() -> None:
    marks = _watermarks("a", "b")
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("a", "1", 120.0, is_finished=False)

    assert marks.region == 100.0


def test_a_silent_camera_lets_go_after_its_time() -> None:
    marks = _watermarks("a", "b")
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("b", "7", 100.0, is_finished=False)
    marks.promise("a", "1", 131.0, is_finished=False)

    assert marks.region == 131.0
    assert marks.silent() == [("b", "7")]


def test_a_camera_never_heard_lets_go_as_well() -> None:
    marks = _watermarks("a", "b")
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("a", "1", 131.0, is_finished=False)

    assert marks.region == 131.0


def test_when_all_have_finished_nothing_is_waited_for() -> None:
    marks = _watermarks("a", "b")
    marks.promise("a", "1", 100.0, is_finished=True)
    marks.promise("b", "1", 90.0, is_finished=True)

    assert marks.region == math.inf


def test_a_new_session_is_waited_for_again() -> None:
    marks = _watermarks("a")
    marks.promise("a", "1", 100.0, is_finished=True)
    marks.promise("a", "2", 105.0, is_finished=False)

    assert marks.region == 105.0


def test_a_promise_is_not_taken_back() -> None:
    marks = _watermarks("a")
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("a", "1", 95.0, is_finished=False)

    assert marks.region == 100.0


def test_a_finished_file_of_the_evening_says_nothing_of_one_played_from_the_morning() -> None:
    marks = _watermarks("evening", "a", "b")
    marks.promise("evening", "1", 9000.0, is_finished=True)
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("b", "1", 105.0, is_finished=False)

    assert marks.region == 100.0
    assert marks.silent() == []


def test_a_session_left_behind_comes_late_and_changes_nothing() -> None:
    marks = _watermarks("a")
    marks.promise("a", "1", 100.0, is_finished=False)
    marks.promise("a", "2", 110.0, is_finished=False)
    marks.promise("a", "1", 104.0, is_finished=True)

    assert marks.region == 110.0
