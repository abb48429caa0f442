"""Telling other programs that a watched vehicle returned: by a webhook, by MQTT.

Each notice is told at least once; twice where an answer got lost or the program was ended in between. It carries its
number, by which whoever is told knows it again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from storage.export import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paho.mqtt.client import Client

    from storage.watches import Notice
    from streamer.config import MqttConfig, WatchConfig

#: How long a receiver may take for each step: to be reached, and to answer.
TIMEOUT_S = 5.0
#: How long one step of MQTT's own loop waits for the network.
_LOOP_S = 0.1
#: Answers to what was posted. All others, as 404 and 410, are to whoever posts.
_REFUSALS = frozenset({400, 409, 413, 415, 422})


class DeliveryError(Exception):
    """A receiver has not taken a notice; why, in one line without secrets."""


class RefusedError(DeliveryError):
    """A receiver is there, and does not take this one."""


class Channel(Protocol):
    """A way to tell somebody."""

    @property
    def name(self) -> str:
        """Of the way."""

    def tell(self, notice: Notice) -> None:
        """Tells it; returns when the receiver has said that it has it. Blocks some `TIMEOUT_S` at most.

        Raises:
            RefusedError: The receiver does not take this one; it may take others.
            DeliveryError: The receiver has not taken it.
        """

    def close(self) -> None:
        """Lets go of a connection; the next notice makes another."""


def channels(config: WatchConfig) -> list[Channel]:
    """The ways that a site file names; none where nobody but the page's readers is told."""
    found: list[Channel] = []
    if config.webhook is not None:
        found.append(Webhook(config.webhook, config.webhook_secret))
    if config.mqtt is not None:
        found.append(Mqtt(config.mqtt))
    return found


def body(notice: Notice) -> bytes:
    """A notice as JSON: the same bytes however often it is told."""
    values = {
        "notice": notice.notice_id,
        "watch": notice.watch_id,
        "vehicle": notice.vehicle_id,
        "tracklet": notice.tracklet_id,
        "camera": notice.camera,
        "seen_at": utc_text(notice.seen_at),
        "found_at": utc_text(notice.made_at),
        "tracklets": notice.tracklets,
        "note": notice.note,
    }
    return json.dumps(values, ensure_ascii=False).encode()


class Webhook:
    """Posts notices to an address. No redirect is followed, and no proxy is asked.

    Args:
        address: http or https; a user and password in it go as Basic authorisation.
        secret: Signs each body: `X-Signature` is its HMAC-SHA256, hexadecimal. None: not signed.
    """

    name = "webhook"

    def __init__(self, address: str, secret: str | None = None) -> None:
        self._address = address
        self._secret = secret

    def tell(self, notice: Notice) -> None:
        """See `Channel`. Taken is what is answered by a status from 200 to 299."""
        try:
            status = self._post(notice)
        except (OSError, HTTPException) as error:  # first: that of a bad certificate is a ValueError, too
            raise DeliveryError(_line(self.name, error, self._secrets())) from error
        except ValueError as error:
            raise DeliveryError(f"{self.name}: its address can't be used") from error
        if status in _REFUSALS:
            raise RefusedError(f"{self.name}: answered with status {status}")
        if not 200 <= status < 300:
            raise DeliveryError(f"{self.name}: answered with status {status}")

    def close(self) -> None:
        """See `Channel`: each notice has a connection of its own."""

    def _post(self, notice: Notice) -> int:
        parts = urlsplit(self._address)
        data = body(notice)
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(notice.notice_id)}
        if self._secret is not None:
            headers["X-Signature"] = hmac.new(self._secret.encode(), data, hashlib.sha256).hexdigest()
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        # Each byte that comes begins the time-out anew: one who answers byte by byte would hold us for ever.
        deadline = Timer(2 * TIMEOUT_S, _hang_up, [connection])
        deadline.start()
        try:
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request("POST", target, data, headers)
            with connection.getresponse() as answer:
                return answer.status
        finally:
            deadline.cancel()
            connection.close()

    def _secrets(self) -> list[str]:
        # The path too: what receives such posts often knows its own by it.
        parts = urlsplit(self._address)
        found = (self._secret, parts.password, unquote(parts.password or ""), parts.query, parts.path.strip("/"))
        return [secret for secret in found if secret]


class Mqtt:
    """Publishes notices on a broker's topic at quality 1: at least once. One connection serves until `close`.

    Args:
        config: Of the site file.
    """

    name = "mqtt"

    def __init__(self, config: MqttConfig) -> None:
        self._config = config
        self._client: Client | None = None

    def tell(self, notice: Notice) -> None:
        """See `Channel`. Taken is what the broker has acknowledged."""
        try:
            client = self._client or self._connect()
            self._client = client
            sent = client.publish(self._config.topic, body(notice), qos=1)
            _loop_until(client, sent.is_published, "the broker has not acknowledged it in time")
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            secrets = [self._config.password] if self._config.password else []
            raise DeliveryError(_line(self.name, error, secrets)) from error

    def close(self) -> None:
        """See `Channel`."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()

    def _connect(self) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = TIMEOUT_S
        if self._config.username is not None:
            client.username_pw_set(self._config.username, self._config.password)
        if self._config.tls:
            client.tls_set_context(ssl.create_default_context())
        answers: list[str] = []

        def heard(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
            answers.append("" if getattr(reason, "is_failure", True) is False else str(reason))

        client.on_connect = heard
        client.connect(self._config.host, self._config.port, keepalive=60)
        self._client = client
        _loop_until(client, lambda: bool(answers), "the broker has not answered in time")
        if answers[0]:
            raise ConnectionRefusedError(f"the broker refused: {answers[0]}")
        return client


def _hang_up(connection: HTTPConnection) -> None:
    # Who reads from it learns that it has ended; closing it from here would not wake them.
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _loop_until(client: Client, is_done: Callable[[], bool], otherwise: str) -> None:
    """Does what the connection has to do, until something is true."""
    from paho.mqtt.client import error_string
    from paho.mqtt.enums import MQTTErrorCode

    until = time.monotonic() + TIMEOUT_S
    while not is_done():
        code = client.loop(_LOOP_S)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and not is_done():
            raise ConnectionError(error_string(code))
        if time.monotonic() > until:
            raise TimeoutError(otherwise)


def _line(name: str, error: Exception, secrets: Iterable[str]) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(str(said).split())
    for secret in secrets:
        line = line.replace(secret, "***")
    return f"{name}: {line}"
