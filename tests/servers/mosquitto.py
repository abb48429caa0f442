"""A real MQTT broker, Debian's mosquitto, and somebody who listens to it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers.need import absent, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "tracker", "mqtt-secret"


def _program() -> str:
    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    return found or absent("mosquitto is not installed")


def _answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def mosquitto(port: int | None = None) -> Iterator[int]:
    """A broker that knows `USER` alone; its port on the loopback interface."""
    program, port = _program(), port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        passwords, config = Path(folder) / "passwords", Path(folder) / "mosquitto.conf"
        subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, USER, PASSWORD], check=True, capture_output=True)
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}", "user root"]
        config.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen(
            [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            wait_until(lambda: _answers(port), what="mosquitto")
            yield port
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def listening(port: int, topic: str) -> Iterator[list[bytes]]:
    """What is published there from now on, as it comes."""
    client, heard, is_ready = Client(CallbackAPIVersion.VERSION2), list[bytes](), Event()
    client.username_pw_set(USER, PASSWORD)
    client.on_subscribe = lambda *_: is_ready.set()
    client.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
    client.connect("127.0.0.1", port)
    client.on_connect = lambda *_: _subscribe(client, topic)
    client.loop_start()
    try:
        assert is_ready.wait(30)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def _subscribe(client: Client, topic: str) -> None:
    client.subscribe(topic, qos=1)
