"""The decisions of one region, as a pure function of its sightings and watermarks.

A tracklet gets a provisional identity as soon as it has a picture, and a final one when it has ended and the region's
watermark has passed the end of its settle window. All tracklets that end in one window are decided together, with the
vehicles already known; what is not clear by then may wait a little longer. Windows are fixed in event time, so that
neither the order in which messages arrive within them nor the way they come in batches changes what is decided.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from streamer.matcher.centring import Centring
from streamer.matcher.decision import Candidate, Correction, Decision, Outcome, Reason, Rule, vehicle_id_of
from streamer.matcher.evidence import Scales, gap_s
from streamer.matcher.gallery import Gallery, Identity
from streamer.matcher.learner import TopologyLearner
from streamer.matcher.second_look import changes, rename
from streamer.matcher.site_calibration import SiteCalibration
from streamer.matcher.sure_pairs import sure_pairs
from streamer.matcher.window import Placed, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reid.calibration import Calibration
    from streamer.config import MatcherConfig
    from streamer.matcher.broken import Breaks
    from streamer.matcher.roads import RoadGraph
    from streamer.matcher.tracklet import Tracklet

#: Candidates that a decision tells of.
_TOLD = 5
#: Tracklets that a second look takes in at most: the newest.
_LOOKED_AT = 2000
#: Log-odds, at best, that a vehicle out of reach has come back, before any look at it.
_STRICTLY = -5.0


class Linker:
    """Holds the identities of one region and decides. Reads no clock; not thread-safe."""

    def __init__(self, config: MatcherConfig, *, roads: RoadGraph, calibration: Calibration) -> None:
        self._config = config
        self._calibration = calibration
        self._site_calibration = SiteCalibration(calibration)
        self._learner = TopologyLearner(roads)
        self._centring = Centring(calibration.centres)
        self._gallery = Gallery(calibration)
        self._scales = Scales(config, calibration, self._centring, self._learner.topology)
        self._tracklets: dict[str, tuple[Tracklet, str]] = {}
        self._waiting: list[Tracklet] = []
        #: By tracklet that is not decided yet, the vehicle that a person has given it to.
        self._said: dict[str, str] = {}
        self._settled_until = -math.inf
        self._looked_at = -math.inf
        self._has_centred = self._has_learned = self._has_calibrated = False

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def scales(self) -> Scales:
        """What pairs are weighed with now."""
        calibration = self._site_calibration.current if self._config.self_calibration else self._calibration
        if not self._scales.is_made_of(calibration, self._learner.topology):
            self._scales = Scales(self._config, calibration, self._centring, self._learner.topology)
        return self._scales

    @property
    def remembers_since(self) -> float:
        """Tracklets last seen before this moment, in seconds since the epoch, are candidates no more."""
        return self._gallery.forgotten_before

    def remember(self, tracklet: Tracklet, vehicle_id: str) -> None:
        """Takes in what was decided before: a final assignment from the database."""
        self._learner.remember(tracklet)
        if tracklet.ended_at >= self.remembers_since:
            self._link(tracklet, vehicle_id)

    def correct(self, tracklet_id: str, vehicle_id: str, *, is_pinned: bool) -> None:
        """Takes in what somebody else decided on a tracklet; of one in view or waiting, it holds from its end on.

        Args:
            tracklet_id: The tracklet.
            vehicle_id: The vehicle that it is.
            is_pinned: Whether it must stay so: a person said it.
        """
        if tracklet_id in self._tracklets:
            tracklet, before = self._tracklets[tracklet_id]
            tracklet.is_pinned = is_pinned
            if before != vehicle_id:
                self._gallery.unlink(before, tracklet)
                self._link(tracklet, vehicle_id)
        elif is_pinned:
            self._said[tracklet_id] = vehicle_id
        else:
            self._said.pop(tracklet_id, None)

    def dump(self) -> dict[str, bytes]:
        """What must be kept beside the tracklets and their decisions, by name; only what has changed since the last."""
        progress = {
            "model_id": self._calibration.model_id,
            "settled_until": self._settled_until,
            "looked_at": self._looked_at,
            "forgotten_before": self._gallery.forgotten_before,
            "seen": self._learner.seen,
        }
        state = {"progress": json.dumps(progress).encode()}
        if self._has_centred:
            state["centring"] = json.dumps(self._centring.to_json()).encode()
        if self._has_learned:
            state["topology"] = self._learner.dump()
        if self._has_calibrated:
            state["calibration"] = json.dumps(self._site_calibration.to_json()).encode()
        self._has_centred = self._has_learned = self._has_calibrated = False
        return state

    def load(self, state: Mapping[str, bytes]) -> None:
        """Takes up what `dump` gave, before any tracklet is remembered."""
        if "progress" in state:
            progress = json.loads(state["progress"])
            self._settled_until, self._looked_at = progress["settled_until"], progress["looked_at"]
            self._gallery.forgotten_before = progress["forgotten_before"]
            self._learner.seen = progress["seen"]
            # Another embedder's vectors have other means, which are to be written over; ways and overlaps stay.
            self._has_centred = progress["model_id"] != self._calibration.model_id
            if "centring" in state and not self._has_centred:
                self._centring.load(json.loads(state["centring"]))
        if "topology" in state:
            self._learner.load(state["topology"])
        if "calibration" in state:
            self._site_calibration.load(json.loads(state["calibration"]))

    def propose(self, tracklet: Tracklet) -> Decision:
        """A provisional identity for a tracklet that is still in view. It changes nothing that is decided later."""
        return self._decide([tracklet], decided_at=tracklet.ended_at, is_provisional=True)[0]

    def end(self, tracklet: Tracklet) -> None:
        """The tracklet is complete; it waits for its window to settle."""
        self._waiting.append(tracklet)
        if self._window_end(tracklet.ended_at) <= self._settled_until:
            self._learner.remember(tracklet)

    def is_due(self, watermark: float) -> bool:
        """Whether a window has passed that `settle` would decide."""
        return self._has_window(watermark) or self._wants_last_look(watermark)

    def settle(self, watermark: float) -> Outcome:
        """Decides every window that has passed.

        Args:
            watermark: Event time in seconds since the epoch, up to which everything has been seen; infinity at the end.
        """
        outcome = Outcome()
        while self._has_window(watermark):
            outcome.extend(self._settle_window(self._next_window()))
        if self._wants_last_look(watermark):
            outcome.corrections += self._look_again(self._settled_until)
            outcome.settled_at = self._settled_until
        return outcome

    def _has_window(self, watermark: float) -> bool:
        window_end = self._next_window()
        return math.isfinite(window_end) and window_end <= watermark

    def _wants_last_look(self, watermark: float) -> bool:
        """Once nothing more will come, what was decided last is looked at again without waiting."""
        return bool(self._config.second_look_s) and math.isinf(watermark) and self._settled_until > self._looked_at

    def _next_window(self) -> float:
        """The end of the next window in which a tracklet can be decided; infinity where none waits."""
        ends = [self._window_end(tracklet.ended_at) for tracklet in self._waiting]
        return max(min(ends, default=math.inf), self._settled_until + self._config.settle_s)

    def _window_end(self, moment: float) -> float:
        settle_s = self._config.settle_s
        return (math.floor(moment / settle_s) + 1) * settle_s

    def _settle_window(self, now: float) -> Outcome:
        self._forget(now)
        ended = [tracklet for tracklet in self._waiting if self._window_end(tracklet.ended_at) <= now]
        ended.sort(key=lambda tracklet: (tracklet.started_at, tracklet.tracklet_id))
        fresh = [tracklet for tracklet in ended if self._window_end(tracklet.ended_at) > self._settled_until]
        self._centring.learn(fresh)
        self._has_centred |= bool(fresh)
        self._has_learned |= self._learner.learn(fresh, self.scales.looks)
        # First, so that the others are weighed against it as well.
        upheld = [self._uphold(tracklet, now) for tracklet in ended if tracklet.tracklet_id in self._said]
        ended = [tracklet for tracklet in ended if not tracklet.is_pinned]
        decisions = self._decide(ended, decided_at=now, is_provisional=False) if ended else []
        vehicles = {decision.tracklet_id: decision.vehicle_id for decision in decisions}
        for tracklet in ended:
            if tracklet.tracklet_id in vehicles:
                self._link(tracklet, vehicles[tracklet.tracklet_id])
        decisions = [*upheld, *decisions]
        decided = {decision.tracklet_id for decision in decisions}
        self._waiting = [tracklet for tracklet in self._waiting if tracklet.tracklet_id not in decided]
        self._settled_until = now
        looks_again = self._config.second_look_s > 0 and now >= self._looked_at + self._config.second_look_s
        return Outcome(
            decisions,
            self._look_again(now) if looks_again else [],
            settled_at=now,
        )

    def _uphold(self, tracklet: Tracklet, now: float) -> Decision:
        """Makes final what a person has said of a tracklet, unweighed."""
        vehicle_id = self._said.pop(tracklet.tracklet_id)
        tracklet.is_pinned = True
        self._link(tracklet, vehicle_id)
        return Decision(
            tracklet.tracklet_id,
            vehicle_id,
            is_provisional=False,
            reason=Reason.MOVE,
            rule=Rule.SAID,
            score=None,
            margin=None,
            considered=0,
            candidates=(),
            decided_at=now,
        )

    def _decide(self, tracklets: Sequence[Tracklet], *, decided_at: float, is_provisional: bool) -> list[Decision]:
        """Decides tracklets (earliest first) together; on those that had better wait it says nothing."""
        window = self._window(tracklets, self._candidates(tracklets, may_return=not is_provisional))
        placed = window.place()
        waits = {
            index
            for index, (tracklet, place) in enumerate(zip(tracklets, placed, strict=True))
            if not is_provisional and self._may_wait(tracklet, place, decided_at)
        }
        apart = {index for index, place in enumerate(placed) if index not in waits and self._is_torn(place)}
        if waits or apart:
            # Whoever held together by one of them alone must not stay together without it.
            without = window.place(waits | apart)
            placed = [_alone(placed[index]) if index in apart else place for index, place in enumerate(without)]
        names = [self._name(index, place, tracklets) for index, place in enumerate(placed)]
        return [
            self._decision(
                tracklets,
                index,
                placed[index],
                names,
                decided_at=decided_at,
                is_provisional=is_provisional,
                breaks=window.breaks,
            )
            for index in range(len(tracklets))
            if index not in waits
        ]

    def _window(self, tracklets: Sequence[Tracklet], candidates: Sequence[Sequence[Identity]]) -> Window:
        config = self._config
        # Whoever comes back may be any of those that have not been seen for long.
        return_log_odds = min(_STRICTLY, math.log(config.return_share / max(1, len(self._gallery))))
        return Window(tracklets, candidates, self.scales, reach_s=config.reach_s, return_log_odds=return_log_odds)

    def _candidates(self, tracklets: Sequence[Tracklet], *, may_return: bool) -> list[list[Identity]]:
        """For each tracklet the identities that look most like it: of those on their way, and of those long unseen."""
        found: list[list[Identity]] = [[] for _ in tracklets]
        for camera in sorted({tracklet.camera for tracklet in tracklets}):
            rows = [row for row, tracklet in enumerate(tracklets) if tracklet.camera == camera]
            own = [tracklets[row] for row in rows]
            since = min(tracklet.started_at for tracklet in own)
            reach_s = self._reach_s(camera)
            near = self._gallery.nearest(own, reach_s, since=since, count=self._config.candidates)
            for row, identities in zip(rows, near, strict=True):
                found[row] += identities
            if may_return:
                beyond = dict.fromkeys(reach_s, self._config.reach_s)
                back = self._gallery.nearest_beyond(own, beyond, since=since, count=self._config.returning)
                for row, identities in zip(rows, back, strict=True):
                    found[row] += identities
        return found

    def _reach_s(self, camera: str) -> dict[str, float]:
        """By camera, for how long a vehicle last seen there may turn up at this one."""
        otherwise = self._config.reach_s
        topology = self._learner.topology
        return {
            left: topology.reach_s(left, camera, otherwise=otherwise) if left != camera else otherwise
            for left in self._gallery.cameras
        }

    def _is_torn(self, place: Placed) -> bool:
        """Whether it would fit somewhere else almost as well."""
        has_rival = sum(total > 0 for total, _, _ in place.rivals) > 1
        return not place.is_alone and has_rival and (place.margin or 0.0) < self._config.min_margin

    def _may_wait(self, tracklet: Tracklet, place: Placed, now: float) -> bool:
        if now >= self._window_end(tracklet.ended_at) + self._config.hold_s:
            return False
        return place.margin is not None and abs(place.margin) < self._config.hold_margin

    def _name(self, index: int, place: Placed, tracklets: Sequence[Tracklet]) -> str:
        """The vehicle's id: that of the known one, else after the first of those that are decided with it."""
        if place.identity is not None:
            return place.identity.vehicle_id
        return vehicle_id_of(tracklets[min([index, *place.others])].tracklet_id)

    def _decision(
        self,
        tracklets: Sequence[Tracklet],
        index: int,
        place: Placed,
        names: Sequence[str],
        *,
        decided_at: float,
        is_provisional: bool,
        breaks: Breaks,
    ) -> Decision:
        tracklet = tracklets[index]
        candidates = []
        for log_odds, identity, others in place.rivals[:_TOLD]:
            members = [*(identity.members if identity else ()), *(tracklets[other] for other in others)]
            nearest = min(members, key=lambda member: (max(0.0, gap_s(tracklet, member)), member.tracklet_id))
            name = identity.vehicle_id if identity else names[others[0]]
            evidence = self.scales.weigh(tracklet, nearest, breaks)
            candidates.append(Candidate(name, nearest.tracklet_id, nearest.camera, log_odds, evidence, len(members)))
        own = next((one for one in candidates if one.vehicle_id == names[index]), None)
        is_founder = place.identity is None and names[index] == vehicle_id_of(tracklet.tracklet_id)
        reason, rule = self._account(tracklet, place, own, is_founder=is_founder)
        return Decision(
            tracklet.tracklet_id,
            names[index],
            is_provisional,
            reason,
            rule,
            place.score,
            place.margin,
            len(place.rivals),
            tuple(candidates),
            decided_at,
        )

    def _account(
        self, tracklet: Tracklet, place: Placed, own: Candidate | None, *, is_founder: bool
    ) -> tuple[Reason, Rule]:
        if not place.rivals:
            return Reason.NEW, Rule.NOBODY
        if place.is_alone:
            return Reason.NEW, Rule.TOO_CLOSE if place.rivals[0][0] > 0 else Rule.NOBODY_ALIKE
        if is_founder:
            return Reason.NEW, Rule.BEST
        if own is not None and own.camera == tracklet.camera:
            return Reason.JOINED, Rule.BROKEN_OFF
        if own is not None and own.evidence.transit_s > self._config.reach_s:
            return Reason.RETURNED, Rule.CAME_BACK
        return Reason.LINKED, Rule.BEST

    def _link(self, tracklet: Tracklet, vehicle_id: str) -> None:
        self._gallery.link(vehicle_id, tracklet)
        self._tracklets[tracklet.tracklet_id] = (tracklet, vehicle_id)

    def _forget(self, now: float) -> None:
        gone = self._gallery.forget(now - self._config.time_to_live_s, most=self._config.max_identities)
        for tracklet in gone:
            del self._tracklets[tracklet.tracklet_id]

    def _look_again(self, now: float) -> list[Correction]:
        """Decides the tracklets of the last while anew, with what has been learned and seen since."""
        self._calibrate(self._looked_at, now)
        self._looked_at = now
        since = now - self._config.look_back_s
        recent = [
            (tracklet, vehicle_id)
            for tracklet, vehicle_id in self._tracklets.values()
            if tracklet.ended_at >= since and not tracklet.is_pinned and tracklet.vectors
        ]
        for tracklet, _ in self._tracklets.values():
            if tracklet.ended_at < since and not self._learner.holds(tracklet):
                tracklet.path = None
        if not recent:
            return []
        recent.sort(key=lambda one: (one[0].ended_at, one[0].tracklet_id))
        recent = sorted(recent[-_LOOKED_AT:], key=lambda one: (one[0].started_at, one[0].tracklet_id))
        tracklets, before = [tracklet for tracklet, _ in recent], [vehicle_id for _, vehicle_id in recent]
        anchors = self._anchors(recent)
        candidates = [[anchors[vehicle_id]] if vehicle_id in anchors else [] for vehicle_id in before]
        window = self._window(tracklets, candidates)
        placed = window.place()
        after = rename(window, placed, tracklets, before, anchors, is_taken=lambda name: bool(self._gallery.find(name)))
        corrections = []
        for kind, rows in changes(before, after, anchors):
            decisions = [
                replace(
                    self._decision(
                        tracklets,
                        row,
                        placed[row],
                        after,
                        decided_at=now,
                        is_provisional=False,
                        breaks=window.breaks,
                    ),
                    reason=kind,
                    rule=Rule.SECOND_LOOK,
                )
                for row in rows
            ]
            corrections.append(Correction(kind, tuple(decisions)))
        for tracklet, old, new in zip(tracklets, before, after, strict=True):
            if old != new:
                self._gallery.unlink(old, tracklet)
                self._link(tracklet, new)
        return corrections

    def _calibrate(self, looked_at: float, now: float) -> None:
        """Learns what similarity says here, from what has ended since the last look and been decided since."""
        waited_s = self._config.settle_s + self._config.hold_s
        pairs = sure_pairs(
            [tracklet for tracklet, _ in self._tracklets.values()],
            {tracklet_id: vehicle_id for tracklet_id, (_, vehicle_id) in self._tracklets.items()},
            self._learner.topology,
            since=looked_at - waited_s,
            until=now - waited_s,
        )
        self._has_calibrated |= self._site_calibration.learn(pairs, self._centring)

    def _anchors(self, recent: Sequence[tuple[Tracklet, str]]) -> dict[str, Identity]:
        """What of the vehicles is not looked at again: decided long ago, or by a person."""
        looked_at = {tracklet.tracklet_id for tracklet, _ in recent}
        anchors = {}
        for vehicle_id in sorted({vehicle_id for _, vehicle_id in recent}):
            identity = self._gallery.find(vehicle_id)
            rest = [member for member in identity.members if member.tracklet_id not in looked_at] if identity else []
            if rest:
                anchors[vehicle_id] = Identity(-1, vehicle_id, rest)
        return anchors


def _alone(place: Placed) -> Placed:
    """One that is taken out of where it came to lie: of its rivals, the vehicles that are known."""
    rivals = tuple(rival for rival in place.rivals if rival[1] is not None)
    best = place.rivals[0][0]
    return Placed(None, (), None, -best, tuple((total, identity, ()) for total, identity, _ in rivals))
