"""Where alerts go: a webhook (HTTP POST) or an MQTT topic. Each call makes one attempt; the caller tries again."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote

from asr_runtime.errors import ConfigurationError, DependencyError
from asr_runtime.http.client import login_of, open_url
from asr_runtime.http.connection import HttpError
from asr_runtime.http.urls import checked_url
from asr_runtime.redact import one_line, percent_encoded, redact

__all__ = ["DeliveryError", "Mqtt", "Target", "Webhook", "make_target"]

_FORMS = (
    "expected http(s)://USER:PASSWORD@HOST:PORT/PATH or mqtt(s)://USER:PASSWORD@HOST:PORT/TOPIC "
    "(user and port may be left out), special letters percent-encoded"
)
_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class DeliveryError(Exception):
    """One attempt to deliver an alert failed; the message is one line without a secret."""


class Target(Protocol):
    """A place that takes alerts; `name` is its redacted URL."""

    name: str

    def send(self, body: bytes) -> None:
        """Deliver one JSON object. Raises `DeliveryError`."""


def make_target(url: str, timeout: float) -> Target:
    """Make the target of a URL by its scheme; nothing is connected yet.

    Args:
        url: its password may be percent-encoded or not.
        timeout: seconds of one attempt.

    Raises:
        ConfigurationError: it is not such a URL.
        DependencyError: paho-mqtt is needed and not installed.
    """
    try:
        parts = checked_url(url, ("http", "https", *_MQTT_PORTS), "alert target")
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; {_FORMS}") from None
    path = percent_encoded(url.strip()).partition("://")[2].partition("/")[2]
    if not path.isascii() or " " in path or (parts.scheme in _MQTT_PORTS and set("?#") & set(path)):
        raise ConfigurationError(f"alert target {redact(parts.geturl())}: {_FORMS}")
    return Mqtt(parts, timeout) if parts.scheme in _MQTT_PORTS else Webhook(parts, timeout)


class Webhook:
    """POSTs each alert as `application/json`; only an answer of 200 to 299 is a delivery. No redirect is followed.

    Args:
        parts: of the URL; user and password go into an `Authorization` header.
        timeout: seconds of one attempt, to the end of the answer's head.
    """

    def __init__(self, parts: SplitResult, timeout: float) -> None:
        self.name = redact(parts.geturl())
        self._url, self._timeout = parts.geturl(), timeout
        self._login = login_of(parts, basic_first=True)

    def send(self, body: bytes) -> None:
        """Deliver one JSON object. Raises `DeliveryError`."""
        headers = {"Content-Type": "application/json"}
        try:
            response = open_url(self._url, self._timeout, method="POST", body=body, headers=headers, login=self._login)
        except HttpError as error:
            if error.status is None:
                raise DeliveryError(str(error)) from None
            hint = ", a redirect, which is not followed" if error.status // 100 == 3 else ""
            raise DeliveryError(f"it answered {error.status} {error.reason}{hint}") from None
        response.close()


class Mqtt:
    """Publishes each alert with QoS 1 over a separate connection; the broker's receipt is the delivery.

    Args:
        parts: of the URL; its path is the topic.
        timeout: seconds to connect, and again until the receipt.

    Raises:
        ConfigurationError: no topic, or one with a wildcard.
        DependencyError: paho-mqtt is not installed.
    """

    def __init__(self, parts: SplitResult, timeout: float) -> None:
        self.name = redact(parts.geturl())
        self._parts, self._timeout = parts, timeout
        self._topic = unquote(parts.path.removeprefix("/"))
        if not self._topic or set("+#\0") & set(self._topic):
            raise ConfigurationError(f"alert target {self.name}: expected a topic without + and # after the host")
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise DependencyError(
                f"alert target {self.name}: needs the package paho-mqtt 2 or later: pip install 'asrnet-edge[live]'"
            ) from None
        self._make: Callable[[], Client] = lambda: Client(CallbackAPIVersion.VERSION2)

    def send(self, body: bytes) -> None:
        """Deliver one JSON object. Raises `DeliveryError`."""
        client, parts = self._make(), self._parts
        refusals: list[str] = []
        client.on_connect = lambda client, data, flags, code, properties: (
            refusals.append(str(code)) if code.is_failure else None
        )
        client.connect_timeout = self._timeout
        try:
            if parts.username is not None:
                client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
            if parts.scheme == "mqtts":
                context = ssl.create_default_context()
                context.sslsocket_class = _ClosingSocket
                client.tls_set_context(context)
            # paho waits as long as `keepalive` for a TLS handshake.
            port = parts.port or _MQTT_PORTS[parts.scheme]
            client.connect(parts.hostname or "", port, keepalive=max(1, round(self._timeout)))
            self._wait(client, client.is_connected, refusals, "it did not accept the connection")
            published = client.publish(self._topic, body, qos=1)
            self._wait(client, published.is_published, refusals, "it did not confirm the alert")
        except DeliveryError:
            raise
        except Exception as error:  # paho's reader raises anything at what is not MQTT
            raise DeliveryError(_line(error) or type(error).__name__) from None
        finally:
            client.disconnect()

    def _wait(self, client: Any, is_done: Callable[[], bool], refusals: list[str], failure: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not is_done():
            code = client.loop(0.1)
            if refusals:
                raise DeliveryError(f"it refused the connection: {refusals[0]}")
            if code != 0 and not is_done():
                raise DeliveryError(f"{failure}: connection lost")
            if time.monotonic() > deadline:
                raise DeliveryError(f"{failure} within {self._timeout:g} s")


class _ClosingSocket(ssl.SSLSocket):
    """Closes when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _line(reason: object) -> str:
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return one_line(text)
