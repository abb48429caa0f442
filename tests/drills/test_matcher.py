"""Matchers that are killed, joined and frozen: all that is decided is what one says that nothing befalls."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from streamer.bus.kafka.topics import ensure_topics
from streamer.config import KafkaConfig
from streamer.counters import Field
from tests.drills.figures import IS_FULL, note, size
from tests.drills.matchers import (
    IN_HAND,
    IN_TRANSACTION,
    REGIONS,
    Fleet,
    Results,
    made_up_messages,
    made_up_site,
    undisturbed,
)
from tests.servers.kafka import Broker
from tests.servers.need import wait_until
from tests.servers.postgresql import PostgreSQL, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.drills.matchers import Sent

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(size(300, 1200))]

SESSION_TIMEOUT_S = 3.0
SEED = 5
FREEZES = [(IN_HAND, "sqlite")]
MORE_FREEZES = [(IN_HAND, "postgresql"), (IN_TRANSACTION, "sqlite"), (IN_TRANSACTION, "postgresql")]
only_full = pytest.mark.skipif(not IS_FULL, reason="the short form kills one of two behind Kafka")


@pytest.fixture(scope="module")
def messages() -> list[Sent]:
    return made_up_messages(SEED, vehicles=size(8, 40))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, messages: list[Sent]) -> Results:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), messages)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@pytest.fixture
def kafka() -> Iterator[KafkaConfig]:
    with Broker() as broker:
        config = KafkaConfig(
            bootstrap_servers=(broker.address,),
            partitions=len(REGIONS),
            request_timeout_s=2.0,
            session_timeout_s=SESSION_TIMEOUT_S,
        )
        ensure_topics(config)
        yield config


def _new_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty one, by its URL."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/site.db"
    server: PostgreSQL = request.getfixturevalue("server")
    return server.new_database()


def _is_the_same(found: Results, expected: Results, case: str, **figures: float) -> None:
    differing = found.differing(expected)
    note("matcher", case, tracklets=found.tracklets, vehicles=found.vehicles, differing=differing, **figures)
    assert differing == 0
    assert found == expected


def _failures(fleet: Fleet) -> dict[str, int]:
    """How often the matchers began anew, and how often database or bus failed them or their telling of decisions."""
    return {"begun_anew": fleet.count(Field.BEGUN_ANEW), "failures": fleet.count(Field.FAILURES)}


def _kill_again_and_again(fleet: Fleet, messages: list[Sent], kills: int) -> float:
    """A random part, a random moment, a kill; returns the seconds of the longest way back."""
    chance, longest_s = random.Random(SEED), 0.0
    bounds = [0, *sorted(chance.sample(range(1, len(messages)), kills)), len(messages)]
    fleet.publish(messages[: bounds[1]])
    fleet.start("matcher")
    for begins, ends, then in zip(bounds, bounds[1:], bounds[2:], strict=False):
        fleet.wait_for(chance.randrange(begins, ends) + 1)
        time.sleep(chance.uniform(0.0, 0.05))
        fleet.kill("matcher")
        began_s = time.monotonic()
        fleet.publish(messages[ends:then])
        fleet.start("matcher")
        fleet.wait_for(ends + 1)
        longest_s = max(longest_s, time.monotonic() - began_s)
    return longest_s


def test_one_that_is_killed_again_and_again_beside_its_outbox(
    tmp_path: Path, messages: list[Sent], expected: Results
) -> None:
    kills = size(2, 20)
    site = made_up_site(tmp_path, f"sqlite:///{tmp_path}/site.db", "memory")

    with Fleet(site, ["matcher"]) as fleet:
        back_s = _kill_again_and_again(fleet, messages, kills)
        found = fleet.finish()

    _is_the_same(found, expected, "killed, no broker", kills=kills, back_s=round(back_s, 1))


@only_full
def test_one_that_is_killed_again_and_again_behind_kafka(
    tmp_path: Path, messages: list[Sent], expected: Results, kafka: KafkaConfig
) -> None:
    kills = 20
    site = made_up_site(tmp_path, f"sqlite:///{tmp_path}/site.db", kafka.model_dump())

    with Fleet(site, ["matcher"]) as fleet:
        back_s = _kill_again_and_again(fleet, messages, kills)
        found = fleet.finish()

    _is_the_same(found, expected, "killed, Kafka", kills=kills, back_s=round(back_s, 1))


@pytest.mark.parametrize("kind", ["postgresql", *["sqlite"] * IS_FULL])
def test_two_of_which_one_is_killed(
    tmp_path: Path,
    messages: list[Sent],
    expected: Results,
    kafka: KafkaConfig,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    site = made_up_site(tmp_path, _new_database(kind, request, tmp_path), kafka.model_dump())
    half = len(messages) // 2

    with Fleet(site, ["first", "second"]) as fleet:
        fleet.start("first")
        fleet.start("second")
        fleet.publish(messages[:half])
        fleet.wait_for(half // 2)
        fleet.kill("first")
        fleet.publish(messages[half:])
        took_over_s = fleet.wait_for(len(messages))
        found = fleet.finish()

    case = f"one of two killed, {kind}"
    _is_the_same(found, expected, case, kills=1, took_over_s=round(took_over_s, 1))


def test_one_that_is_joined_by_others(
    tmp_path: Path, messages: list[Sent], expected: Results, kafka: KafkaConfig
) -> None:
    site = made_up_site(tmp_path, f"sqlite:///{tmp_path}/site.db", kafka.model_dump())
    names = ["first", "second", "third", "fourth"][: size(3, 4)]
    part = len(messages) // len(names)

    with Fleet(site, names) as fleet:
        for number, name in enumerate(names):
            fleet.start(name)
            fleet.publish(messages[number * part : (number + 1) * part])
            fleet.wait_for(number * part + part // 2)
        fleet.publish(messages[len(names) * part :])
        found = fleet.finish()
        failures = _failures(fleet)

    case = f"joined by {'three' if IS_FULL else 'two'}"
    _is_the_same(found, expected, case, handed_over=len(names) - 1, **failures)


@pytest.mark.parametrize(("freezes", "kind"), FREEZES + MORE_FREEZES * IS_FULL)
def test_one_that_is_frozen_and_thawed_when_another_has_its_partitions(
    tmp_path: Path,
    messages: list[Sent],
    expected: Results,
    kafka: KafkaConfig,
    request: pytest.FixtureRequest,
    freezes: str,
    kind: str,
) -> None:
    site = made_up_site(tmp_path, _new_database(kind, request, tmp_path), kafka.model_dump())
    half = len(messages) // 2

    with Fleet(site, ["first", "second"]) as fleet:
        fleet.publish(messages[:half])
        fleet.start("first", freezes=freezes)
        wait_until(lambda: fleet.is_frozen("first"), what="the matcher to freeze")
        began_s = time.monotonic()
        fleet.start("second")
        if freezes == IN_HAND:
            fleet.wait_for(half)
        else:
            # The frozen one holds what the other wants to write: neither goes on until it is thawed.
            time.sleep(SESSION_TIMEOUT_S + 1)
        frozen_s = time.monotonic() - began_s
        fleet.publish(messages[half:])
        fleet.thaw("first")
        fleet.wait_for(len(messages))
        wait_until(lambda: fleet.board.stage("first").count(Field.BEGUN_ANEW) > 0 or freezes != IN_HAND)
        assert fleet.is_alive("first")
        found = fleet.finish()
        failures = _failures(fleet)

    case = f"frozen {freezes}, {kind}"
    _is_the_same(found, expected, case, frozen_s=round(frozen_s, 1), **failures)
