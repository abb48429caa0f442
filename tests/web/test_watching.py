"""Whoever wants to hear of a vehicle is told, whatever happens to the network, to the receiver and to us."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from storage.database import Database
from storage.errors import StorageError
from storage.watches import Notice, notices, unwatch, watch
from streamer.config import ConfigError, MqttConfig
from tests.servers.mosquitto import PASSWORD, USER, listening, mosquitto
from tests.servers.need import free_port, wait_until
from tests.storage.storage_builders import after, store, tracklet
from tests.web.asking import site_file
from tests.web.logged import logged
from web import notices as telling
from web import watching
from web.notices import DeliveryError, Mqtt, Webhook, body
from web.services import Services
from web.watching import Watchman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ("tests.storage.storage_fixtures",)

NOTICE = Notice(7, 3, "v1", "gate/s1/2", "gate", after(2), after(3), 0, None, "", "a white van, ü")
TOPIC = "vehicles/returned"


@dataclass
class Receiver:
    """An HTTP server that answers as it is told to.

    Attributes:
        port: Where; nobody is there while it is closed.
        status: What it answers.
        is_slow: Whether it answers only when `release` is set.
        is_dripping: Whether its answer comes byte by byte, without an end.
        posts: Paths, headers and bodies as they came.
        release: Lets slow answers go.
    """

    port: int
    status: int = 200
    is_slow: bool = False
    is_dripping: bool = False
    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    release: Event = field(default_factory=Event)

    @property
    def told(self) -> list[int]:
        """The numbers of the notices that it has taken or refused."""
        return [json.loads(data)["notice"] for _, _, data in self.posts]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/token-17"

    @contextmanager
    def open(self) -> Iterator[None]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append((self.path, dict(self.headers.items()), data))
                if outer.is_slow:
                    outer.release.wait(30)
                    return
                while outer.is_dripping and not outer.release.wait(0.02):
                    self.wfile.write(b"X")
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def handle(self) -> None:
                with suppress(ConnectionError):
                    super().handle()

            def log_message(self, *_arguments: object) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield
            finally:
                self.release.set()
                server.shutdown()
                thread.join()


@pytest.fixture
def receiver() -> Receiver:
    """Nobody is there until it is opened."""
    return Receiver(free_port())


@contextmanager
def _site(folder: Path, **settings: Any) -> Iterator[Services]:  # noqa: ANN401 - whatever the section takes
    """`v1` was seen at the gate, and is waited for."""
    site = site_file(folder, watch={"period_s": 0.02} | settings)
    with closing(Services(site, Database.open(site.database))) as services:
        with services.database.transaction() as session:
            store(session, tracklet("gate", 1), "v1")
            watch(session, "v1", by="anna", at=datetime.now(UTC), note="case 17")
        yield services


def _returns(services: Services, number: int) -> None:
    with services.database.transaction() as session:
        store(session, tracklet("gate", number, start=number), "v1")


def _noted(services: Services) -> list[Notice]:
    with services.database.snapshot() as session:
        return list(reversed(notices(session)))


# The ways.


def test_a_post_says_what_returned_and_is_signed(receiver: Receiver) -> None:
    with receiver.open():
        Webhook(receiver.address + "?site=a", "hook-secret").tell(NOTICE)
    ((path, headers, data),) = receiver.posts
    assert path == "/hooks/token-17?site=a"
    assert json.loads(data) == {
        "notice": 7,
        "watch": 3,
        "vehicle": "v1",
        "tracklet": "gate/s1/2",
        "camera": "gate",
        "seen_at": "2026-01-01T12:00:02.000000Z",
        "found_at": "2026-01-01T12:00:03.000000Z",
        "tracklets": 1,
        "note": "a white van, ü",
    }
    assert headers["X-Signature"] == hmac.new(b"hook-secret", data, hashlib.sha256).hexdigest()
    assert (headers["Idempotency-Key"], headers["Content-Type"]) == ("7", "application/json")


def test_a_post_names_the_user_of_the_address(receiver: Receiver) -> None:
    with receiver.open():
        Webhook(receiver.address.replace("http://", "http://me:p%40ss@")).tell(NOTICE)
    headers = receiver.posts[0][1]
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="
    assert "X-Signature" not in headers


@pytest.mark.parametrize("status", [301, 404, 500])
def test_an_answer_that_takes_nothing_is_a_failure_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with receiver.open(), pytest.raises(DeliveryError, match=f"webhook: answered with status {status}"):
        Webhook(receiver.address).tell(NOTICE)
    assert len(receiver.posts) == 1


def test_who_does_not_answer_is_not_waited_for(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TIMEOUT_S", 0.1)
    receiver.is_slow = True
    with receiver.open(), pytest.raises(DeliveryError, match="webhook: timed out"):
        Webhook(receiver.address).tell(NOTICE)


def test_who_answers_byte_by_byte_is_hung_up_on(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TIMEOUT_S", 0.2)
    receiver.is_dripping = True
    with receiver.open(), pytest.raises(DeliveryError, match="webhook: "):
        Webhook(receiver.address).tell(NOTICE)


@pytest.mark.parametrize(
    "address", ["http://me:hush@127.0.0.1:1/token-17", "http://me:hush@[::1/", "http://127.0.0.1:99999/token-17"]
)
def test_why_it_failed_is_one_line_without_secrets(address: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        Webhook(address, "hook-secret").tell(NOTICE)
    line = str(caught.value)
    assert line.startswith("webhook: ")
    assert len(line.splitlines()) == 1
    assert not any(secret in line for secret in ("hush", "token-17", "hook-secret"))


def test_a_certificate_that_nobody_vouches_for_is_named_as_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> int:
        raise ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

    monkeypatch.setattr(Webhook, "_post", refused)
    with pytest.raises(DeliveryError, match="webhook: certificate verify failed"):
        Webhook("https://desk.example.org/hooks").tell(NOTICE)


def test_a_broker_publishes_what_returned() -> None:
    with mosquitto() as port, listening(port, TOPIC) as heard:
        channel = Mqtt(MqttConfig(host="127.0.0.1", port=port, username=USER, password=PASSWORD))
        with closing(channel):
            for _ in range(2):
                channel.tell(NOTICE)
        wait_until(lambda: len(heard) == 2, what="two messages")
    assert heard == [body(NOTICE)] * 2


def test_a_broker_that_refuses_or_is_not_there_is_a_failure() -> None:
    with mosquitto() as port:
        wrong = Mqtt(MqttConfig(host="127.0.0.1", port=port, username=USER, password="wrong-secret"))
        with pytest.raises(DeliveryError, match="mqtt: the broker refused: Not authorized") as caught:
            wrong.tell(NOTICE)
        assert "wrong-secret" not in str(caught.value)
    with pytest.raises(DeliveryError, match="mqtt: Connection refused"):
        Mqtt(MqttConfig(host="127.0.0.1", port=port)).tell(NOTICE)


def test_a_broker_that_went_away_is_found_again() -> None:
    channel = Mqtt(MqttConfig(host="127.0.0.1", port=free_port(), username=USER, password=PASSWORD))
    port = channel._config.port
    with closing(channel):
        with mosquitto(port):
            channel.tell(NOTICE)
        with pytest.raises(DeliveryError, match="mqtt: "):
            channel.tell(NOTICE)
        with mosquitto(port), listening(port, TOPIC) as heard:
            channel.tell(NOTICE)
            wait_until(lambda: bool(heard), what="a message")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"webhook": "https://me:hush@desk.example.org:99999/hooks"}, "webhook"),
        ({"webhook": "http://:8080/hooks"}, "webhook"),
        ({"webhook": "https://desk.example.org/two words"}, "webhook"),
        ({"webhook": "https://[::1/hooks"}, "webhook"),
        ({"webhook_secret": 31415926}, "webhook_secret"),
        ({"mqtt": {"host": ""}}, "mqtt.host"),
        ({"mqtt": {"host": "broker", "topic": "vehicles/#"}}, "mqtt.topic"),
        ({"mqtt": {"host": "broker", "password": 31415926}}, "mqtt.password"),
    ],
)
def test_whom_nobody_could_tell_is_refused_at_the_start(tmp_path: Path, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"web\.watch\.{key}: wanted ") as caught:
        site_file(tmp_path, watch=settings)
    assert not any(secret in str(caught.value) for secret in ("hush", "31415926"))


def test_settings_that_are_shown_hold_no_secret(tmp_path: Path) -> None:
    broker = {"host": "broker", "password": "hush"}
    site = site_file(tmp_path, watch={"webhook": "https://me:hush@desk/hush", "webhook_secret": "hush", "mqtt": broker})
    assert "hush" not in repr(site)


# The watchman.


def test_where_nobody_is_to_be_told_a_notice_is_delivered_at_once(tmp_path: Path) -> None:
    with _site(tmp_path) as services:
        _returns(services, 2)
        Watchman(services).look()
        (one,) = _noted(services)
        assert (one.tracklet_id, one.attempts, one.error) == ("gate/s1/2", 0, "")
        assert one.delivered_at is not None


def test_every_return_is_told_once_through_all_that_fails(tmp_path: Path, receiver: Receiver) -> None:
    now = [0.0]
    with _site(tmp_path, webhook=receiver.address) as services:
        watchman = Watchman(services, clock=lambda: now[0])
        _returns(services, 2)
        watchman.look()
        (one,) = _noted(services)
        assert (one.attempts, one.delivered_at, one.error) == (1, None, "webhook: Connection refused")
        # Left alone for a while.
        watchman.look()
        assert _noted(services)[0].attempts == 1
        now[0] += 1.01
        receiver.status = 500
        with receiver.open():
            _returns(services, 3)
            watchman.look()
            assert [found.attempts for found in _noted(services)] == [1, 1]
            now[0] += 1.5
            watchman.look()
            assert len(receiver.posts) == 1
            now[0] += 0.6
            receiver.status = 204
            watchman.look()
            watchman.look()
        assert sorted(receiver.told[1:]) == [found.notice_id for found in _noted(services)]
        assert all(found.delivered_at is not None for found in _noted(services))
        assert [found.error for found in _noted(services)] == [
            "webhook: Connection refused",
            "webhook: answered with status 500",
        ]


def test_a_pause_has_an_end(tmp_path: Path, receiver: Receiver) -> None:
    now = [0.0]
    with _site(tmp_path, webhook=receiver.address) as services:
        watchman = Watchman(services, clock=lambda: now[0])
        _returns(services, 2)
        for _ in range(20):
            watchman.look()
            now[0] += 300.0
        assert _noted(services)[0].attempts == 20
        with receiver.open():
            watchman.look()
        assert len(receiver.posts) == 1


def test_of_two_ways_each_is_told_once(tmp_path: Path, receiver: Receiver) -> None:
    now, port = [0.0], free_port()
    broker = {"host": "127.0.0.1", "port": port, "username": USER, "password": PASSWORD}
    with _site(tmp_path, webhook=receiver.address, mqtt=broker) as services, receiver.open():
        watchman = Watchman(services, clock=lambda: now[0])
        _returns(services, 2)
        watchman.look()
        (one,) = _noted(services)
        assert (one.delivered_at, one.attempts, one.error) == (None, 1, "mqtt: Connection refused")
        now[0] += 2.0
        with mosquitto(port), listening(port, TOPIC) as heard:
            watchman.look()
            wait_until(lambda: bool(heard), what="a message")
        assert _noted(services)[0].delivered_at is not None
        assert len(receiver.posts) == len(heard) == 1
        assert receiver.posts[0][2] == heard[0]


def test_a_broker_that_is_away_keeps_nothing_from_the_webhook(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_BATCH", 2)
    broker = {"host": "127.0.0.1", "port": free_port()}
    with _site(tmp_path, webhook=receiver.address, mqtt=broker) as services, receiver.open():
        watchman = Watchman(services, clock=lambda: 0.0)
        for number in range(2, 7):
            _returns(services, number)
        for _ in range(3):
            watchman.look()
        assert receiver.told == [1, 2, 3, 4, 5]
        assert all(found.delivered_at is None for found in _noted(services))


def test_what_a_receiver_will_not_take_keeps_nothing_else_back(tmp_path: Path, receiver: Receiver) -> None:
    now = [0.0]
    with _site(tmp_path, webhook=receiver.address) as services, receiver.open():
        watchman = Watchman(services, clock=lambda: now[0])
        receiver.status = 422
        _returns(services, 2)
        for _ in range(10):
            watchman.look()
            now[0] += 300.0
        receiver.posts.clear()
        watchman.look()
        receiver.status = 200
        _returns(services, 3)
        watchman.look()
        # The first is left alone for some minutes; the second is not.
        assert receiver.told == [1, 2]
        assert [found.delivered_at is None for found in _noted(services)] == [True, False]
        now[0] += 300.0
        watchman.look()
        assert receiver.told == [1, 2, 1]


def test_what_nobody_expected_of_one_notice_is_a_failure_that_names_no_secret(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, secret = Webhook.tell, "hush"

    def breaks(channel: Webhook, notice: Notice) -> None:
        if notice.notice_id == 1:
            raise RuntimeError(secret)
        tell(channel, notice)

    monkeypatch.setattr(Webhook, "tell", breaks)
    with _site(tmp_path, webhook=receiver.address) as services, receiver.open(), logged("web.watching") as said:
        watchman = Watchman(services, clock=lambda: 0.0)
        for number in (2, 3):
            _returns(services, number)
        watchman.look()
        assert receiver.told == [2]
        first, second = _noted(services)
        assert (first.error, first.attempts) == ("webhook: RuntimeError, which nobody expected", 1)
        assert second.delivered_at is not None
    assert len(said) == 1
    assert secret not in said[0]


def test_of_two_programs_one_tells_until_it_stops(tmp_path: Path, receiver: Receiver) -> None:
    with _site(tmp_path, webhook=receiver.address) as services, receiver.open():
        first, second = Watchman(services), Watchman(services)
        _returns(services, 2)
        first.look()
        _returns(services, 3)
        second.look()
        assert len(receiver.posts) == 1
        first.leave()
        second.look()
        assert receiver.told == [1, 2]
        _returns(services, 4)
        first.look()
        assert receiver.told == [1, 2]


def test_what_was_told_is_not_told_again_where_that_could_not_be_written(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise StorageError("no room")

    with _site(tmp_path, webhook=receiver.address) as services, receiver.open():
        watchman = Watchman(services)
        _returns(services, 2)
        with monkeypatch.context() as patch:
            patch.setattr("web.watching.note_delivery", fails)
            with pytest.raises(StorageError):
                watchman.look()
        watchman.look()
        assert receiver.told == [1]
        assert _noted(services)[0].delivered_at is not None


def test_without_a_watch_nothing_is_written(tmp_path: Path) -> None:
    with _site(tmp_path) as services:
        with services.database.transaction() as session:
            unwatch(session, 1, by="anna", at=datetime.now(UTC))
        watchman = Watchman(services)
        watchman.look()
        assert watchman._turn is None


def test_the_thread_lives_through_an_absent_database(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Event()

    def absent(_session: object) -> bool:
        failed.set()
        raise StorageError("the database is away")

    with _site(tmp_path, webhook=receiver.address) as services, receiver.open(), logged("web.watching") as said:
        watchman = Watchman(services)
        with monkeypatch.context() as patch:
            patch.setattr("web.watching.has_work", absent)
            watchman.start()
            assert failed.wait(30)
            _returns(services, 2)
        wait_until(lambda: receiver.told == [1], what="a post")
        watchman.stop()
        wait_until(lambda: watchman._turn is None, what="the turn to be left")
    assert said == ["watches: the database is away"]


def test_the_thread_lives_through_what_nobody_expected_and_says_so(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: object) -> bool:
        raise ValueError("evidence that is no JSON")

    with _site(tmp_path, webhook=receiver.address) as services, receiver.open(), logged("web.watching") as said:
        watchman = Watchman(services)
        with monkeypatch.context() as patch:
            patch.setattr("web.watching.has_work", broken)
            watchman.start()
            wait_until(lambda: services.watch.failures > 2, what="looks in vain")
            assert services.watch.trouble == "ValueError, which nobody expected: the log has more"
            _returns(services, 2)
        wait_until(lambda: receiver.told == [1], what="a post")
        wait_until(lambda: not services.watch.trouble, what="the trouble's end")
        watchman.stop()
        assert services.watch.failures > 2
    assert len(said) == 1
    assert said[0].startswith("watches: ValueError")


def test_pauses_after_what_nobody_expected_grow_and_end() -> None:
    assert [watching.pause_s(2.0, failures) for failures in (0, 1, 2, 3)] == [2.0, 4.0, 8.0, 16.0]
    assert watching.pause_s(2.0, 5000) == watching.LONGEST_PAUSE_S


@pytest.mark.integration
def test_of_two_programs_beside_a_matcher_each_return_is_told_once(
    postgresql_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    site = site_file(tmp_path, watch={"period_s": 0.01, "webhook": receiver.address})
    site = site.model_copy(update={"database": postgresql_url})
    count = 40
    with (
        closing(Services(site, Database.open(site.database))) as one,
        closing(Services(site, Database.open(site.database))) as other,
        receiver.open(),
    ):
        with one.database.transaction() as session:
            store(session, tracklet("gate", 1), "v1")
            watch(session, "v1", by="anna", at=datetime.now(UTC))
        watchmen = [Watchman(one), Watchman(other)]
        for watchman in watchmen:
            watchman.start()
        for number in range(2, count + 2):
            _returns(one, number)
            if number == count // 2:
                # Whichever had the turn, the other goes on.
                watchmen[0].stop()
        wait_until(lambda: len(set(receiver.told)) == count, what="all returns")
        watchmen[1].stop()
        assert len(receiver.told) == count
        told = [found.tracklet_id for found in _noted(one)]
        assert sorted(told) == sorted(f"gate/s1/{number}" for number in range(2, count + 2))
        assert all(found.delivered_at is not None for found in _noted(other))
