"""Dates frames by the stream's own clock. Pure: times come in as arguments."""

from __future__ import annotations

#: A sender once disbelieved is believed again when its clock is this share of the limit off: time must not leap to and
#: fro for one whose clock stands at the limit.
BELIEVED_AGAIN = 0.5
#: Frames without a timestamp keep the declared pace, but stay this close to when they came: a camera that declares 25
#: frames/s and sends 12 would fall behind by half of the time.
MAX_PACE_ERROR_S = 0.1
#: A timestamp that runs ahead of the time really passed by more than this is a restart of the stream's clock.
MAX_LEAP_S = 10.0
#: How often the anchor of arrival times follows the drift between the camera's clock and ours: 50 ppm make 3 ms.
DRIFT_WINDOW_S = 60.0


class FileClock:
    """Start time + presentation time since the stream's start.

    Args:
        start_s: When the stream's start was captured, seconds since the Unix epoch.
        first_pts_s: The stream's start on its own clock, seconds.
        frame_s: Average duration of a frame, for frames that carry no timestamp.
    """

    def __init__(self, start_s: float, first_pts_s: float, frame_s: float) -> None:
        self.held = 0
        self._offset_s = start_s - first_pts_s
        self._start_s = start_s
        self._frame_s = frame_s
        self._last_s: float | None = None

    def date(self, pts_s: float | None) -> float:
        """When the frame was captured, seconds since the epoch; never less than the one before."""
        following = self._start_s if self._last_s is None else self._last_s + self._frame_s
        if pts_s is None:
            self.held += 1
            at_s = following
        else:
            at_s = pts_s + self._offset_s
            if self._last_s is not None and at_s < self._last_s:
                # Recordings put end to end begin anew at 0: go on from here, at their own pace.
                at_s = following
                self._offset_s = at_s - pts_s
        self._last_s = at_s
        return at_s


class LiveClock:
    """The sender's clock where it reports one that can be right, else the quickest arrival + presentation time.

    Nothing arrives before it was captured, so of all frames the one that came quickest is the best witness of the
    camera's clock: the anchor moves to it at once (a server may begin with the seconds that it has kept), and after
    each `DRIFT_WINDOW_S` to the quickest of that window, which follows the camera's drift. Corrections backward are
    slewed at half speed, so that time never stands still for a tracker that divides by it.

    A sender whose clock is further off than `max_skew_s` is not believed: two cameras whose clocks are minutes apart
    would make impossible travel times, while arrival times are wrong by the network's delay alone.

    Args:
        frame_s: Average duration of a frame, for frames that carry no timestamp.
        max_skew_s: How far a sender's clock may be off.

    Attributes:
        held: Frames so far that had no timestamp.
        has_sender_time: Whether the last frame was dated by the sender.
        is_dated: Whether any frame so far had a timestamp.
        is_disbelieved: Whether the sender reports a time that can't be right.
        sender_skew_s: How far the sender's clock is behind ours, by the quickest arrival; None before its report.
    """

    def __init__(self, frame_s: float, max_skew_s: float) -> None:
        self.held = 0
        self.is_dated = False
        self.has_sender_time = False
        self.is_disbelieved = False
        self.sender_skew_s: float | None = None
        self._frame_s = frame_s
        self._max_skew_s = max_skew_s
        self._lag_s = 0.0
        self._last_seen_s: float | None = None
        self._last_s: float | None = None
        self._last_pts_s: float | None = None
        self._last_arrival_s = 0.0
        self._anchor_s: float | None = None
        self._quickest_s = 0.0
        self._window_ends_s = 0.0

    def date(self, pts_s: float | None, arrived_s: float, sender_offset_s: float | None = None) -> float:
        """When the frame was captured, seconds since the epoch; never less than the one before.

        Args:
            pts_s: The frame's timestamp on the stream's clock, seconds; None where it has none.
            arrived_s: Now, seconds since the epoch.
            sender_offset_s: What to add to `pts_s` for the sender's wall clock; None before its first report.
        """
        if pts_s is None:
            self.held += 1
            return self._keep_pace(arrived_s)
        self.is_dated = True
        step_s = self._step(pts_s, arrived_s)
        anchor_s = self._arrival_anchor(pts_s, arrived_s, leapt=step_s is None)
        self.has_sender_time = sender_offset_s is not None and self._believes(anchor_s - sender_offset_s)
        self._lag_s = 0.0
        if self.has_sender_time and sender_offset_s is not None:
            self._lag_s = anchor_s - sender_offset_s
            anchor_s = sender_offset_s
        self._last_pts_s, self._last_arrival_s, self._last_seen_s = pts_s, arrived_s, arrived_s
        return self._advance(pts_s + anchor_s, step_s or 0.0)

    def _believes(self, skew_s: float) -> bool:
        """Whether a sender's clock can be right."""
        self.sender_skew_s = skew_s
        limit_s = self._max_skew_s * (BELIEVED_AGAIN if self.is_disbelieved else 1.0)
        self.is_disbelieved = abs(skew_s) > limit_s
        return not self.is_disbelieved

    def _keep_pace(self, arrived_s: float) -> float:
        """A frame without a timestamp: a frame's time after the one before, as far as its arrival allows."""
        since_s = 0.0 if self._last_seen_s is None else max(0.0, arrived_s - self._last_seen_s)
        self._last_seen_s = arrived_s
        likely_s = arrived_s - self._lag_s
        if self._last_s is None:
            return self._advance(likely_s, 0.0)
        paced_s = self._last_s + self._frame_s
        target_s = min(max(paced_s, likely_s - MAX_PACE_ERROR_S), likely_s + MAX_PACE_ERROR_S)
        return self._advance(target_s, min(since_s, self._frame_s))

    def _step(self, pts_s: float, arrived_s: float) -> float | None:
        """Stream time since the previous frame; None where the stream's clock began anew."""
        if self._last_pts_s is None:
            return 0.0
        step_s = pts_s - self._last_pts_s
        return step_s if 0 <= step_s <= max(0.0, arrived_s - self._last_arrival_s) + MAX_LEAP_S else None

    def _arrival_anchor(self, pts_s: float, arrived_s: float, *, leapt: bool) -> float:
        seen_s = arrived_s - pts_s
        if self._anchor_s is None or leapt:
            self._anchor_s = self._quickest_s = seen_s
            self._window_ends_s = arrived_s + DRIFT_WINDOW_S
        self._quickest_s, self._anchor_s = min(self._quickest_s, seen_s), min(self._anchor_s, seen_s)
        if arrived_s >= self._window_ends_s:
            self._anchor_s, self._quickest_s = self._quickest_s, seen_s
            self._window_ends_s = arrived_s + DRIFT_WINDOW_S
        return self._anchor_s

    def _advance(self, target_s: float, step_s: float) -> float:
        if self._last_s is not None:
            target_s = max(target_s, self._last_s + step_s / 2)
        self._last_s = target_s
        return target_s
