"""The inbox: files wait for room, a newer frame replaces an older one, news go first, every source has its turn."""

from __future__ import annotations

import threading
import time

from asr_runtime.cameras.inbox import Inbox


def test_put_waits_for_room_and_loses_nothing() -> None:
    inbox: Inbox[int] = Inbox(2)
    leave = threading.Event()
    thread = threading.Thread(target=lambda: [inbox.put(i, leave) for i in range(100)])
    thread.start()
    time.sleep(0.05)
    assert [inbox.take(5) for _ in range(100)] == list(range(100))
    thread.join(5)
    assert inbox.take(0) is None


def test_put_ends_when_the_run_does() -> None:
    inbox: Inbox[int] = Inbox(1)
    leave = threading.Event()
    assert inbox.put(1, leave)
    threading.Timer(0.1, leave.set).start()
    assert not inbox.put(2, leave)


def test_only_the_newest_of_a_camera_counts_and_the_replaced_one_is_given_back() -> None:
    inbox: Inbox[str] = Inbox(1)
    assert inbox.offer("a", "a1") is None
    assert inbox.offer("b", "b1") is None
    assert inbox.offer("a", "a2") == "a1"
    assert inbox.withdraw("b") == "b1"
    assert inbox.withdraw("b") is None
    assert [inbox.take(0), inbox.take(0)] == ["a2", None]


def test_a_fast_camera_cannot_starve_the_others_nor_files() -> None:
    inbox: Inbox[str] = Inbox(2)
    leave = threading.Event()
    taken = []
    inbox.offer("slow", "slow")
    for _ in range(2):
        inbox.put("file", leave)
    for _ in range(6):
        inbox.offer("fast", "fast")
        taken.append(inbox.take(0))
    assert taken.index("slow") <= 2
    assert taken.count("file") == 2


def test_news_go_first() -> None:
    inbox: Inbox[str] = Inbox(2)
    inbox.offer("camera", "frame")
    inbox.post("lost")
    assert [inbox.take(0), inbox.take(0)] == ["lost", "frame"]
