"""Many clients of asr-serve at once: is every answer right, is any lost, how long do they take?

    python -m asr_bench.serve_load --clients 50 --seconds 60

Starts asr-serve on loopback, lets every client post pictures one after another, and compares each probability with what
`Detector` gives for the same bytes. A request that is refused because the queue is full (429) is counted apart.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime import Detector, decode_image
from asr_runtime.command import command
from asr_runtime.reports.progress import progress_bar

__all__ = ["Load", "measure"]

_EXAMPLES = Path(__file__).parents[2] / "runtime" / "examples"
_SAME = 1e-5
_PATIENCE = 120.0  # seconds that a client waits for an answer


@dataclass
class Load:
    """What came of a load.

    Attributes:
        outcomes: `right`, `wrong`, `refused` (429) and `lost` (anything else) -> how often.
        seconds: time of each right answer, from the request to its last byte.
        alone: time of one picture in this process, decoded and scored, median, seconds.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    alone: float = 0.0

    def figures(self) -> list[Figure]:
        """Return the times of right answers, and how many requests had no right answer."""
        bad = self.outcomes["wrong"] + self.outcomes["lost"]
        times = [
            Figure(f"asr-serve under load: an answer, p{p}", "s", False, (float(np.percentile(self.seconds, p)),))
            for p in ((50, 99) if self.seconds else ())
        ]
        return [
            *times,
            Figure("asr-serve under load: wrong or lost answers", "answers", False, (float(bad),)),
        ]

    def lines(self) -> list[str]:
        """Return the account in words."""
        p50, p99 = np.percentile(self.seconds, [50, 99]) if self.seconds else (float("nan"),) * 2
        counts = ", ".join(f"{self.outcomes[name]} {name}" for name in ("right", "wrong", "refused", "lost"))
        return [
            f"{self.outcomes.total()} requests: {counts}",
            f"seconds for an answer: p50 {p50:.3f}, p99 {p99:.3f}; without the server {self.alone:.3f}",
        ]


def measure(address: str, pictures: Sequence[bytes], expected: Sequence[float], clients: int, seconds: float) -> Load:
    """Post pictures from many threads until the time is over.

    Args:
        address: `HOST:PORT` of asr-serve.
        pictures: bytes of image files.
        expected: the probability of each.
        clients: how many post at once.
        seconds: after which no new request begins.
    """
    load = Load()
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=_PATIENCE)) as connection:
            at = number
            while time.monotonic() < end:
                at = (at + 1) % len(pictures)
                began = time.monotonic()
                outcome = _post(connection, pictures[at], expected[at])
                with lock:
                    load.outcomes[outcome] += 1
                    if outcome == "right":
                        load.seconds.append(time.monotonic() - began)
                if outcome == "refused":
                    time.sleep(0.5)

    threads = [threading.Thread(target=client, args=[number], daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in progress_bar(threads, "clients"):
        thread.join()
    return load


def _post(connection: http.client.HTTPConnection, picture: bytes, expected: float) -> str:
    try:
        connection.request("POST", "/v1/screen", picture, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return "lost"
    if answer.status == 429:
        return "refused"
    if answer.status != 200:
        return "lost"
    (record,) = json.loads(body)["records"]
    is_right = record["type"] == "image" and abs(record["probability"] - expected) <= _SAME
    return "right" if is_right else "wrong"


@contextlib.contextmanager
def _serving(model: str) -> Iterator[str]:
    code = "from asr_runtime.serve.cli import serve_command; serve_command(prog_name='asr-serve')"
    command = [sys.executable, "-c", code, "--port", "0", "--model", model]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://([^/\s]+)/", process.stderr.readline())
            assert address, "asr-serve did not start"
            yield address[1]
        finally:
            process.terminate()


def _wait_until_ready(address: str) -> None:
    for _ in range(600):
        connection = http.client.HTTPConnection(address, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError("asr-serve is not ready after a minute")


@command("python -m asr_bench.serve_load")
@click.option("--model", default="asrnet-lite", show_default=True, help="Built-in name or exported file.")
@click.option("--clients", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@figures_option
def main(model: str, clients: int, seconds: float, output: Path | None) -> None:
    """Put asr-serve under load and print the results."""
    pictures = [path.read_bytes() for path in sorted((_EXAMPLES / "real").glob("*.jpg"))]
    detector = Detector(model, device="cpu")
    is_whole = detector.card.whole is not None and detector.card.whole.is_default
    expected, times = [], []
    for data in pictures:
        began = time.perf_counter()
        image = decode_image(data, "picture")
        probability = detector.look(image).probability if is_whole else float(detector(image).probability[0])
        times.append(time.perf_counter() - began)
        expected.append(probability)
    with _serving(model) as address:
        _wait_until_ready(address)
        load = measure(address, pictures, expected, clients, seconds)
    load.alone = statistics.median(times)
    for line in load.lines():
        click.echo(line)
    if output is not None:
        write_figures([load], output)
    sys.exit(0 if load.outcomes["wrong"] + load.outcomes["lost"] == 0 else 1)


if __name__ == "__main__":
    main()
