"""Which records become alerts, how often, and that a screening never waits for their receiver."""

from __future__ import annotations

import base64
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_samples import Broker, Receiver, Subscriber, frame, free_port, needs_mosquitto, receiver, state, until

from asr_runtime.errors import ConfigurationError, DependencyError
from asr_runtime.records import ErrorRecord, ImageRecord, VideoRecord
from asr_runtime.reports.alerts import Alerts


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def warnings() -> list[str]:
    return []


def events(server: Receiver | Subscriber) -> list[tuple[str, str]]:
    return [(alert["event"], alert["source"]) for alert in server.alerts]


# Which records become alerts


def test_a_video_alerts_when_its_steady_verdict_turns_to_ai(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}/hook"], warn=pytest.fail)
    for number, steady in enumerate(["real", "unsure", "ai", "ai", "ai"]):
        alerts.observe(frame("clip.mp4", steady, number, number / 25))
    assert alerts.close() == 0
    (alert,) = webhook.alerts
    assert abs(alert.pop("time") - time.time()) < 30
    assert alert == {
        "type": "alert",
        "event": "ai",
        "source": "clip.mp4",
        "probability": 0.75,
        "verdict": "ai",
        "frame": 2,
        "position": 0.08,
        "detail": "the steady verdict turned from unsure to ai",
        "suppressed": 0,
    }
    assert webhook.paths == ["/hook"]
    assert webhook.headers[0]["Content-Type"] == "application/json"


def test_a_live_source_alerts_with_the_time_of_its_frame(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail)
    alerts.observe(frame("door", "ai", 7, 1795409522.7, age=0.03))
    assert alerts.close() == 0
    assert webhook.alerts[0]["time"] == 1795409522.7
    assert "position" not in webhook.alerts[0]


def test_every_image_that_is_ai_alerts_and_nothing_else_does(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail)
    for name, verdict in (("a.png", "ai"), ("b.png", "real"), ("c.png", "unsure"), ("d.png", "ai"), ("a.png", "ai")):
        alerts.observe(ImageRecord(name, 0.5, verdict))
    alerts.observe(ErrorRecord("e.png", "DecodeError", "e.png: is cut off"))
    alerts.observe(VideoRecord("f.mp4", 0.9, "ai", 0.99, 10, 0.4))
    assert alerts.close() == 0
    assert events(webhook) == [("ai", "a.png"), ("ai", "d.png"), ("ai", "a.png")]


def test_a_lost_source_alerts_once_however_often_it_is_tried_and_once_when_it_is_back(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail)
    for new in ("connecting", "live", "stalled", "live", "lost", "connecting", "lost", "connecting", "live", "live"):
        alerts.observe(state("door", new, f"{new} now"))
    assert alerts.close() == 0
    assert events(webhook) == [("lost", "door"), ("live", "door")]
    assert [alert["detail"] for alert in webhook.alerts] == ["lost now", "live now"]
    assert "verdict" not in webhook.alerts[0]


def test_a_source_that_is_given_up_says_so(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail, interval=0)
    alerts.observe(state("door", "lost", "no route"))
    alerts.observe(state("door", "lost", "10 attempts", given_up=True))
    assert alerts.close() == 0
    assert [alert.get("given_up") for alert in webhook.alerts] == [None, True]


def test_ai_before_and_after_an_outage_are_two_alerts(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail, interval=0)
    alerts.observe(frame("door", "ai", age=0.1))
    alerts.observe(state("door", "lost"))
    alerts.observe(state("door", "live"))
    alerts.observe(frame("door", "ai", age=0.1))
    assert alerts.close() == 0
    assert [event for event, _ in events(webhook)] == ["ai", "lost", "live", "ai"]


# How often


def flicker(alerts: Alerts, times: int, source: str = "door") -> None:
    for number in range(times):
        alerts.observe(frame(source, "real", 2 * number, age=0.1))
        alerts.observe(frame(source, "ai", 2 * number + 1, age=0.1))


def test_alerts_of_one_source_keep_their_distance_and_the_next_one_counts_what_was_suppressed(
    webhook: Receiver,
) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail, interval=0.5)
    flicker(alerts, 5)
    flicker(alerts, 1, "yard")
    until(lambda: len(webhook.alerts) == 3)
    assert [(a["source"], a["frame"], a["suppressed"]) for a in webhook.alerts] == [
        ("door", 1, 0),
        ("yard", 1, 0),
        ("door", 9, 3),
    ]
    time.sleep(0.6)
    flicker(alerts, 1)
    assert alerts.close() == 0
    assert webhook.alerts[-1]["suppressed"] == 0
    assert len(webhook.alerts) == 4


def test_the_last_word_on_a_source_is_true_however_fast_it_came(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail, interval=0.4)
    for new in ("live", "lost", "live", "lost", "live", "lost"):
        alerts.observe(state("door", new))
    until(lambda: len(webhook.alerts) == 3)
    time.sleep(0.5)
    assert [(a["event"], a["suppressed"]) for a in webhook.alerts] == [("lost", 0), ("live", 0), ("lost", 1)]
    assert alerts.close() == 0


def test_what_waits_for_its_interval_is_sent_at_the_end(webhook: Receiver) -> None:
    alerts = Alerts([f"http://{webhook.place}"], warn=pytest.fail)
    flicker(alerts, 3)
    assert alerts.close() == 0
    assert [alert["suppressed"] for alert in webhook.alerts] == [0, 1]


# Receivers that fail


def test_an_alert_is_tried_again_and_the_outage_is_reported_once(warnings: list[str]) -> None:
    with receiver(500, 503, 429) as server:
        alerts = Alerts([f"http://me:pass@{server.place}/hook?token=secret"], warn=warnings.append)
        started = time.monotonic()
        alerts.observe(frame("door", "ai", age=0.1))
        alerts.observe(frame("yard", "ai", age=0.1))
        until(lambda: len(server.alerts) == 2)
        assert time.monotonic() - started >= 3.5, "pauses of 0.5, 1 and 2 seconds"
        assert alerts.close() == 0
    place = f"http://***@{server.place}/hook?***"
    assert warnings == [
        f"{place}: an alert could not be delivered (it answered 500 Internal Server Error); "
        "alerts are tried again, each 30 times at most",
        f"{place}: alerts are delivered again",
    ]
    assert events(server) == [("ai", "door"), ("ai", "yard")]


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_receiver_that_does_not_answer_is_left_and_tried_again(behaviour: str, warnings: list[str]) -> None:
    with receiver(behaviour) as server:
        alerts = Alerts([f"http://{server.place}"], warn=warnings.append, timeout=0.5)
        started = time.monotonic()
        alerts.observe(frame("door", "ai", age=0.1))
        assert time.monotonic() - started < 0.2, "observing does not wait"
        until(lambda: server.alerts)
        assert time.monotonic() - started < 4
        assert alerts.close() == 0
    assert len(warnings) == 2


def test_a_redirect_is_not_followed(warnings: list[str]) -> None:
    with receiver() as canary, receiver(*[f"http://{canary.place}/elsewhere"] * 99) as server:
        alerts = Alerts([f"http://me:pass@{server.place}"], warn=warnings.append)
        alerts.observe(frame("door", "ai", age=0.1))
        until(lambda: warnings)
        assert alerts.close(0.5) == 1
        assert canary.paths == []
    assert "it answered 307 Temporary Redirect, a redirect, which is not followed" in warnings[0]


def test_the_password_of_a_webhook_goes_into_a_header_and_nowhere_else(webhook: Receiver) -> None:
    alerts = Alerts([f"http://me:p@ss/w#rd?ü@{webhook.place}/hook"], warn=pytest.fail)
    alerts.observe(frame("door", "ai", age=0.1))
    assert alerts.close() == 0
    sent = webhook.headers[0]
    assert base64.b64decode(sent.pop("Authorization").removeprefix("Basic ")).decode() == "me:p@ss/w#rd?ü"
    assert not any("ss/w" in value for value in sent.values())
    assert webhook.paths == ["/hook"]


def test_a_receiver_that_is_not_there_costs_the_screening_nothing(warnings: list[str]) -> None:
    place = f"http://127.0.0.1:{free_port()}"
    alerts = Alerts([place], warn=warnings.append, waiting=10)
    started = time.monotonic()
    for number in range(2000):
        alerts.observe(ImageRecord(f"{number}.png", 0.9, "ai"))
    assert time.monotonic() - started < 2
    until(lambda: warnings)
    assert alerts.undelivered[place] >= 1989, "the oldest were dropped and counted"
    started = time.monotonic()
    assert alerts.close(0.5) == 2000
    assert time.monotonic() - started < 1
    assert len(warnings) == 1
    assert "Connection refused" in warnings[0]


def test_an_alert_is_given_up_after_its_attempts_and_the_next_one_goes_on(warnings: list[str]) -> None:
    with receiver(500, 500) as server:
        alerts = Alerts([f"http://{server.place}"], warn=warnings.append, attempts=2)
        alerts.observe(ImageRecord("lost.png", 0.9, "ai"))
        alerts.observe(ImageRecord("sent.png", 0.9, "ai"))
        until(lambda: server.alerts)
        assert alerts.close() == 1
        assert events(server) == [("ai", "sent.png")]
    assert warnings[-1].endswith("alerts are delivered again; 1 were lost")


def test_one_target_that_hangs_does_not_hold_up_another(webhook: Receiver, warnings: list[str]) -> None:
    with receiver(*["hang"] * 9) as stuck:
        alerts = Alerts([f"http://{stuck.place}", f"http://{webhook.place}"], warn=warnings.append)
        alerts.observe(frame("door", "ai", age=0.1))
        until(lambda: webhook.alerts, 2)
        started = time.monotonic()
        assert alerts.close(0.3) == 1
        assert time.monotonic() - started < 1
        assert alerts.undelivered == {f"http://{stuck.place}": 1, f"http://{webhook.place}": 0}


def test_alerts_go_on_where_nobody_reads_the_warnings() -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    with receiver(500) as server:
        alerts = Alerts([f"http://{server.place}"], warn=broken)
        alerts.observe(frame("door", "ai", age=0.1))
        until(lambda: server.alerts)
        assert alerts.close() == 0


# Targets that cannot be


@pytest.mark.parametrize(
    "target",
    [
        "ftp://host/x",
        "host/x",
        "http://",
        "http://host:port/",
        "http://host:0/",
        "http://host/a b",
        "http://host/ü",
        "http://host/\r\nX: y",
        "mqtt://host",
        "mqtt://host/",
        "mqtt://host/all/#",
        "mqtt://host/+/x",
        "mqtt://host/x?y",
    ],
)
def test_an_impossible_target_is_refused_at_once(target: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^alert target .*: expected"):
        Alerts([target], warn=pytest.fail)


def test_a_refusal_does_not_show_the_password() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Alerts(["ftp://me:secret@host/x"], warn=pytest.fail)
    assert "ftp://***@host/x" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_paho_is_imported_for_mqtt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, asr_runtime.reports.alerts; sys.exit('paho' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(DependencyError, match=r"mqtt://host/x: .*asrnet-edge\[live\]"):
        Alerts(["mqtt://host/x"], warn=pytest.fail)


# MQTT


@needs_mosquitto
def test_alerts_reach_an_mqtt_topic_with_a_password(tmp_path: Path) -> None:
    password = ("me", "p@ss/w#rd")
    broker = Broker(tmp_path, password=password)
    subscriber = Subscriber(broker.port, "site/alerts", password)
    try:
        alerts = Alerts([f"mqtt://me:p@ss/w#rd@127.0.0.1:{broker.port}/site/alerts"], warn=pytest.fail)
        flicker(alerts, 3)
        assert alerts.close() == 0
        until(lambda: len(subscriber.alerts) == 2)
        assert events(subscriber) == [("ai", "door")] * 2
    finally:
        subscriber.close()
        broker.stop()


@needs_mosquitto
def test_a_wrong_password_is_reported_without_showing_it(tmp_path: Path, warnings: list[str]) -> None:
    broker = Broker(tmp_path, password=("me", "right"))
    try:
        alerts = Alerts([f"mqtt://me:wrong@127.0.0.1:{broker.port}/alerts"], warn=warnings.append)
        flicker(alerts, 1)
        until(lambda: warnings)
        assert alerts.close(0.5) == 1
    finally:
        broker.stop()
    assert warnings[0].startswith(f"mqtt://***@127.0.0.1:{broker.port}/alerts: an alert could not be delivered")
    assert "it refused the connection: Not authorized" in warnings[0]
    assert "wrong" not in warnings[0]


@needs_mosquitto
def test_an_alert_during_an_outage_of_the_broker_arrives_after_it(tmp_path: Path, warnings: list[str]) -> None:
    broker = Broker(tmp_path)
    subscriber = Subscriber(broker.port, "alerts")
    try:
        alerts = Alerts([f"mqtt://127.0.0.1:{broker.port}/alerts"], warn=warnings.append)
        flicker(alerts, 1, "before")
        until(lambda: len(subscriber.alerts) == 1)
        broker.stop()
        subscriber.subscribed.clear()
        flicker(alerts, 1, "during")
        until(lambda: warnings)
        broker.start()
        assert subscriber.subscribed.wait(10)
        until(lambda: len(subscriber.alerts) == 2)
        assert events(subscriber) == [("ai", "before"), ("ai", "during")]
        until(lambda: len(warnings) == 2)
        assert alerts.close() == 0
    finally:
        subscriber.close()
        broker.stop()
    assert "Connection refused" in warnings[0]
    assert warnings[1].endswith("alerts are delivered again")


@needs_mosquitto
def test_mqtts_asks_for_a_certificate_it_can_trust(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)
    broker = Broker(tmp_path, tls=(certificate, key))
    target = f"mqtts://localhost:{broker.port}/alerts"
    try:
        alerts = Alerts([target], warn=warnings.append)
        flicker(alerts, 1)
        until(lambda: warnings)
        assert alerts.close(0.5) == 1
        assert "certificate verify failed" in warnings[0]
        gc.collect()  # a socket that was left open makes a warning, and a warning fails the test
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = Alerts([target], warn=pytest.fail)
        flicker(trusting, 1)
        assert trusting.close(10) == 0
    finally:
        broker.stop()


def test_what_is_no_broker_is_a_failure_like_any_other(webhook: Receiver, warnings: list[str]) -> None:
    alerts = Alerts([f"mqtt://{webhook.place}/alerts"], warn=warnings.append, timeout=0.5)
    flicker(alerts, 1)
    until(lambda: warnings)
    assert alerts.close(0.5) == 1
