"""An archive on a Ray cluster: nothing lost and nothing twice after faults, and pictures per second per core.

    python -m asr_bench.archive                                  20,000 pictures, three faults
    python -m asr_bench.archive --throughput --pictures 3000     against one asr-screen process for each core

Makes the pictures (JPEG, all different: crops of the packaged ones, or of those of a folder), starts a cluster of two
nodes with one core each on this machine, and runs asr-screen as a user does. The faults: a worker is killed, a node is
taken away, the driver is killed and its command started again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from asr_bench.ray_nodes import Nodes, nodes, workers
from asr_export.parity_inputs import packaged_images
from asr_runtime import read_image
from asr_runtime.command import FOLDER, command
from asr_runtime.errors import InputError
from asr_runtime.media.formats import kind_by_suffix

__all__ = ["make_pictures", "screen_with_faults", "throughput"]

_SIDE = 96
_AT_HAND = 500  # originals in memory
_CORES = 2
_LONGEST = 3600.0  # seconds of one run
_MIDDLE = (0.1, 0.9)  # of the pictures: between these shares neither start nor end count


def make_pictures(folder: Path, count: int, originals: Path | None = None, side: int = _SIDE) -> None:
    """Write so many different pictures: crops with a little noise of their own.

    Args:
        folder: is made.
        count: of pictures.
        originals: folder of the pictures that crops are taken of; None: the packaged ones.
        side: of a crop in pixels.

    Raises:
        InputError: no picture of the folder is as large as a crop.
    """
    folder.mkdir(parents=True)
    large = _large_pictures(packaged_images() if originals is None else originals, side)
    for number in range(count):
        rng = np.random.default_rng(number)
        image = large[number % len(large)]
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
        crop = image[top : top + side, left : left + side].astype(np.int16)
        noisy = np.clip(crop + rng.integers(-2, 3, crop.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:06}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 92])


def _large_pictures(folder: Path, side: int) -> list[NDArray[np.uint8]]:
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and kind_by_suffix(path.name, None) == "image"
    ]
    chosen = files[:: max(1, len(files) // _AT_HAND)]
    large = [image for path in chosen if min((image := read_image(path)).shape[:2]) >= side]
    if not large:
        raise InputError(f"{folder}: expected pictures of at least {side} x {side} pixels; it has none")
    return large


def _line(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).parent / "asr-screen"), *map(str, arguments)]


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _LONGEST
    while not condition():
        if time.monotonic() > end:
            raise InputError(f"{what}: not within {_LONGEST:.0f} s")
        time.sleep(0.2)


def screen_with_faults(pictures: Path, out: Path, model: str, chunk: int) -> dict[str, object]:
    """Screen a folder, with a worker killed, a node taken away and the driver killed, and check every record.

    Returns:
        `pictures`, `records`, `lost`, `twice`, `in_order`, `errors`, `finished_before_restart` and `seconds`.
    """
    names = [str(path) for path in sorted(pictures.iterdir())]

    def start(cluster: Nodes) -> subprocess.Popen[bytes]:
        line = _line(f"--ray={cluster.address}", pictures, "-o", out, "--model", model, "--chunk", chunk)
        return subprocess.Popen(line, stderr=subprocess.PIPE)

    def finished() -> int:
        return len(list((out / "done").glob("*.json")))

    def further(share: float) -> Callable[[], bool]:
        return lambda: finished() * chunk >= share * len(names)

    started = time.monotonic()
    with nodes() as cluster:
        with start(cluster) as driver:
            _until(further(0.1), "a tenth of the pictures")
            os.kill(workers()[0], signal.SIGKILL)
            _until(further(0.3), "three tenths of the pictures")
            cluster.take_one_away()
            _until(further(0.5), "half of the pictures")
            driver.kill()
        before = finished()
        with start(cluster) as driver:
            _, messages = driver.communicate(timeout=_LONGEST)
        if driver.returncode not in (0, 1):
            raise InputError(f"asr-screen --ray ended with code {driver.returncode}: {messages.decode()[-500:]}")
    records = [json.loads(line) for part in sorted(out.glob("part-*.jsonl")) for line in part.open()]
    seen = [record["source"] for record in records]
    return {
        "pictures": len(names),
        "records": len(records),
        "lost": len(set(names) - set(seen)),
        "twice": len(seen) - len(set(seen)),
        "in_order": seen == names,
        "errors": sum(record["type"] == "error" for record in records),
        "finished_before_restart": before * chunk,
        "seconds": round(time.monotonic() - started, 1),
    }


def _rate(times: list[float], each: int) -> float:
    """Return pictures a second in the middle of a run, from the times at which so many of them were ready."""
    first, last = (min(len(times) - 1, int(share * len(times))) for share in _MIDDLE)
    return (last - first) * each / (times[last] - times[first])


def _of_processes(pictures: Path, folder: Path, model: str) -> float:
    """Return pictures a second of one asr-screen process for each core, each with its share of the files."""
    files = sorted(pictures.iterdir())
    processes = []
    for number in range(_CORES):
        names = folder / f"{number}.txt"
        names.write_text("".join(f"{path}\n" for path in files[number::_CORES]))
        line = _line("-", "--model", model, "--format", "jsonl", "--threads", 1, "--jobs", 1)
        processes.append(subprocess.Popen(line, stdin=names.open(), stdout=subprocess.PIPE, text=True))
    times: list[list[float]] = [[] for _ in processes]
    streams = {process.stdout.fileno(): n for n, process in enumerate(processes) if process.stdout is not None}
    with selectors.DefaultSelector() as waiting:
        for number in streams:
            waiting.register(number, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fd)
                times[streams[key.fd]] += [time.monotonic()] * data.count(b"\n")
    for process in processes:
        process.wait()
    return sum(_rate(own, 1) for own in times)


def _of_ray(pictures: Path, out: Path, model: str, chunk: int) -> float:
    """Return pictures a second of asr-screen --ray on a cluster with as many cores."""
    with nodes() as cluster:
        line = _line(f"--ray={cluster.address}", pictures, "-o", out, "--model", model, "--chunk", chunk)
        subprocess.run(line, check=True, stderr=subprocess.DEVNULL, timeout=_LONGEST)
    return _rate(sorted(path.stat().st_mtime for path in (out / "done").glob("*.json")), chunk)


def throughput(pictures: Path, folder: Path, model: str, chunk: int, rounds: int) -> dict[str, object]:
    """Measure both in turn.

    Returns:
        `processes` and `ray`: pictures a second of each round; `share`: the median of ray's over that of processes.
    """
    rates: dict[str, list[float]] = {"processes": [], "ray": []}
    for number in range(rounds):
        rates["processes"].append(_of_processes(pictures, folder, model))
        rates["ray"].append(_of_ray(pictures, folder / f"out-{number}", model, chunk))
    share = statistics.median(rates["ray"]) / statistics.median(rates["processes"])
    return {**{name: [round(rate, 1) for rate in values] for name, values in rates.items()}, "share": round(share, 3)}


@command("python -m asr_bench.archive", refusals=(InputError,))
@click.option("--pictures", type=click.IntRange(min=100), default=20_000, help="How many are made.")
@click.option("--model", default="asrnet-lite-tiny", help="Built-in name or file.")
@click.option("--chunk", type=click.IntRange(min=1), default=100, help="Pictures that are written together.")
@click.option("--throughput", "fast", is_flag=True, help="Measure pictures per second instead of faults.")
@click.option("--rounds", type=click.IntRange(min=1), default=2, help="Of --throughput.")
@click.option("--originals", type=FOLDER, help="Folder of pictures to take crops of.  [default: the packaged ones]")
@click.option("--side", type=click.IntRange(min=16), default=_SIDE, help="Of a crop in pixels.")
def main(pictures: int, model: str, chunk: int, fast: bool, rounds: int, originals: Path | None, side: int) -> None:
    """Screen made pictures on a local Ray cluster of two nodes with one core each."""
    with tempfile.TemporaryDirectory(prefix="asr-archive-") as room:
        folder = Path(room)
        make_pictures(folder / "pictures", pictures, originals, side)
        if fast:
            result = throughput(folder / "pictures", folder, model, chunk, rounds)
        else:
            result = screen_with_faults(folder / "pictures", folder / "out", model, chunk)
    click.echo(json.dumps(result, indent=2))
    if not fast and (result["lost"] or result["twice"] or not result["in_order"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
