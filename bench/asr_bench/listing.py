"""How long a data folder of millions of pictures takes to list, and how much memory, without and with its index.

    python -m asr_bench.listing --pictures 3000000

Makes the folder in the layout `generators` out of links to a few real pictures, so that it takes directory entries and
no more. Every measurement is a separate process: listing and splits (`find_data`), the fingerprint over all pictures,
and 20,000 balanced draws of an epoch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from asr_export.parity_inputs import packaged_images
from asr_runtime.command import command

__all__ = ["made_folder", "measured"]

_SOURCES = 30  # half of them photos
_LINKS = 50_000  # of one file; ext4 allows 65,000
_HELD_OUT = 10  # one picture in so many is of the validation split

_MEASURE = """
import json, sys, time
from pathlib import Path
from asr_train.data.draws import BalancedSampler
from asr_train.data.layouts import find_data, picture_counts

def anonymous():  # megabytes that are no file's
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

before, clock = anonymous(), time.perf_counter()
times = {}
def done(name):
    global clock
    times[name], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

data = find_data(sys.argv[1])
done("listing and splits")
listed = anonymous()
data.fingerprint
done("fingerprint")
for position, _ in BalancedSampler(data.train, "sources", 20_000, 0):
    data.train[position].path
done("20,000 draws")
count = sum(picture_counts(data.train).values()) + sum(picture_counts(data.val).values())
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"pictures": count, "seconds": times, "megabytes": round(listed - before), "peak": round(peak)}))
"""


def made_folder(folder: Path, pictures: int) -> None:
    """Make a data folder of so many links."""
    originals = sorted(packaged_images().iterdir())
    split = [("train", pictures - pictures // _HELD_OUT), ("val", pictures // _HELD_OUT)]
    made = 0
    for name, count in split:
        for source in range(_SOURCES):
            own = folder / f"source{source:02}" / name / ("ai" if source % 2 else "nature")
            own.mkdir(parents=True)
            for number in range(source, count, _SOURCES):
                if made % _LINKS == 0:
                    content = originals[made // _LINKS % len(originals)].read_bytes()
                    first = folder.parent / f"original-{made}.jpg"
                    first.write_bytes(content)
                    os.utime(first, (1_700_000_000, 1_700_000_000))
                os.link(first, f"{own}/{number:08}.jpg")
                made += 1


def measured(folder: Path, cache: Path) -> dict[str, object]:
    """List the folder in a separate process, with the index in `cache` if there is one."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    line = [sys.executable, "-c", _MEASURE, str(folder)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


@command("python -m asr_bench.listing")
@click.option("--pictures", type=click.IntRange(min=100), default=3_000_000, help="In the folder that is made.")
def main(pictures: int) -> None:
    """Measure listing without and with the index."""
    with tempfile.TemporaryDirectory(prefix="asr-listing-") as room:
        folder, cache = Path(room) / "data", Path(room) / "cache"
        made_folder(folder, pictures)
        for name in ("without the index", "with the index"):
            click.echo(json.dumps({name: measured(folder, cache)}))
        sizes = [path.stat().st_size for path in cache.rglob("*.parquet")]
        click.echo(json.dumps({"index, megabytes": round(sum(sizes) / 1e6, 1)}))


if __name__ == "__main__":
    main()
