"""How a client reaches the cluster and proves who it is, and in what words it fails."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.bus import BusError
from streamer.bus.kafka.library import KafkaError, KafkaNetClient

if TYPE_CHECKING:
    from streamer.config import KafkaConfig

#: After a broker's return the client tries again within this time.
_RECONNECT_MAX_S = 1.0
_FILE_KEYS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")


def connection_settings(config: KafkaConfig) -> dict[str, Any]:
    """What every client is told: where the brokers are, how to prove who we are, and how long to wait."""
    settings: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "security_protocol": config.security_protocol,
        "request_timeout_ms": int(config.request_timeout_s * 1000),
        "bootstrap_timeout_ms": int(config.request_timeout_s * 1000),
        "reconnect_backoff_max_ms": int(_RECONNECT_MAX_S * 1000),
        "ssl_cafile": config.ssl_cafile,
        "ssl_certfile": config.ssl_certfile,
        "ssl_keyfile": config.ssl_keyfile,
        "ssl_check_hostname": config.ssl_check_hostname,
        "sasl_mechanism": config.sasl_mechanism,
        "sasl_plain_username": config.sasl_username,
        "sasl_plain_password": config.sasl_password,
    }
    return {name: value for name, value in settings.items() if value is not None}


def open_client(kind: Any, config: KafkaConfig, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - the library is untyped
    """Builds a client; the library's constructors connect, and leak their sockets and threads where that fails.

    Blocks up to `request_timeout_s` a server, and as long again for the library's own greeting.

    Raises:
        BusError: Kafka is away, or refuses.
    """
    _require_listener(config)
    opened: list[Any] = []

    def open_network(**network_settings: Any) -> Any:  # noqa: ANN401 - the library is untyped
        opened.append(KafkaNetClient(**network_settings))
        return opened[-1]

    try:
        return kind(kafka_client=open_network, **settings)
    except (KafkaError, OSError, ValueError) as error:
        for network in opened:
            network.close()
        what = f"no answer over {config.security_protocol} (does it want another?), or credentials refused"
        raise bus_error(config, what, error) from error


def bus_error(config: KafkaConfig, what: str, error: BaseException | None) -> BusError:
    """The library's error in one line: which cluster, what could not be done, and why; without the password."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if config.sasl_password:
        reason = reason.replace(config.sasl_password, "***")
    return BusError(f"kafka {','.join(config.bootstrap_servers)}: {what}: {reason}")


def _require_listener(config: KafkaConfig) -> None:
    """Looks before the library leaps: it leaves a socket behind for each attempt, and names no reason in the end."""
    context = _tls_context(config)
    last: Exception | None = None
    for server in config.bootstrap_servers:
        try:
            _knock(server, context, config.request_timeout_s)
        except (OSError, ValueError) as error:
            last = error
        else:
            return
    what = "TLS refused" if isinstance(last, ssl.SSLError) else "no connection"
    raise bus_error(config, what, last) from last


def _knock(server: str, context: ssl.SSLContext | None, timeout_s: float) -> None:
    name, _, port = server.rpartition(":")
    host = name.strip("[]")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as plain:
        if context is not None:
            context.wrap_socket(plain, server_hostname=host).close()


def _tls_context(config: KafkaConfig) -> ssl.SSLContext | None:
    """What the library would make of the same keys; None without TLS."""
    for key in _FILE_KEYS:
        path = getattr(config, key)
        if path is not None and not Path(path).is_file():
            raise BusError(f"kafka: {key}: no such file: {path}")
    if not config.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=config.ssl_cafile)
        context.check_hostname = config.ssl_check_hostname
        if config.ssl_certfile is not None:
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
    except OSError as error:
        raise BusError(f"kafka: {', '.join(_FILE_KEYS)}: {' '.join(str(error).split())}") from error
    return context
