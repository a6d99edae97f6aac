"""How much memory and time data of millions of pictures takes, as a folder and as shards.

    python -m asr_bench.listing --pictures 3000000                a folder, without and with its index
    python -m asr_bench.listing --pictures 3000000 --shards 100   as many tar files with one index

Makes the folder in the layout `generators` out of links to a few real pictures, so that it takes directory entries and
no more; of shards every tar file holds one picture, which all its rows of the index name. Every measurement is a
process of its own. Folders: listing and splits (`find_data`), the fingerprint over all pictures, and 20,000 balanced
draws of an epoch. Shards: listing, and 200,000 draws, of which every 200th picture is read and augmented.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asr_export.parity_inputs import packaged_images
from asr_runtime.command import command
from asr_train.data.shards import INDEX

__all__ = ["made_folder", "made_shards", "measured", "streamed"]

_SOURCES = 30  # half of them photos
_LINKS = 50_000  # of one file; ext4 allows 65,000
_HELD_OUT = 10  # one picture in so many is of the validation split
_SIDE = 64  # of the picture in every tar file

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

_STREAM = """
import json, sys, time
from pathlib import Path
from asr_models import InputTransform
from asr_train.data.augment import Augment
from asr_train.data.batches import TrainingImages
from asr_train.data.layouts import find_data
from asr_train.data.draws import ShardOrder

def kilobytes(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

before = most = kilobytes("RssAnon")  # that are no file's
clock = time.perf_counter()
data = find_data(sys.argv[1])
images = TrainingImages(data.train, InputTransform("crop", 48), Augment())
seen = 0
for key in ShardOrder(data.train, "sources", 200_000, 0):
    if seen % 200 == 0:
        assert images[key].frame is not None
        most = max(most, kilobytes("RssAnon"))
    seen += 1
seconds = round(time.perf_counter() - clock, 1)
peak = kilobytes("VmHWM") // 1024
print(json.dumps({"pictures": len(data.train), "seconds": seconds, "megabytes": (most - before) // 1024, "peak": peak}))
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


def made_shards(folder: Path, pictures: int, shards: int) -> None:
    """Make so many tar files, each with one picture, and an index in which `pictures / shards` rows name each."""
    import webdataset

    folder.mkdir(parents=True)
    content = cv2.imencode(".jpg", np.zeros((_SIDE, _SIDE, 3), np.uint8))[1].tobytes()
    names = [f"train-{number:06d}.tar" for number in range(shards)]
    for name in names:
        with webdataset.TarWriter(str(folder / name)) as tar:
            tar.write({"__key__": "a", "jpg": content})
    with tarfile.open(folder / names[0]) as tar:
        offset = tar.getmembers()[0].offset_data
    each = pictures // shards
    sources = [f"source {row % 20}" for row in range(each)]
    paths = [f"{row:09d}.jpg" for row in range(each)]
    one = np.ones(each, np.int64)
    rows = {"key": paths, "offset": offset * one, "size": len(content) * one, "crc32": zlib.crc32(content) * one}
    rows |= {"label": (np.arange(each) % 2).astype(np.int8), "source": sources, "path": paths}
    counted = Counter((row % 2, sources[row]) for row in range(each))
    facts = {
        "schema": 1,
        "shards": [{"name": name, "split": "train", "pictures": each} for name in names],
        "counts": {"train": [[label, source, count * shards] for (label, source), count in counted.items()]},
    }
    table = pa.table(rows)
    table = table.replace_schema_metadata({"asr.shards": json.dumps(facts)})
    with pq.ParquetWriter(folder / INDEX, table.schema) as writer:
        for _ in names:
            writer.write_table(table, row_group_size=each)


def streamed(folder: Path) -> dict[str, Any]:
    """Draw from shards in a process of its own; return `pictures`, `seconds`, `megabytes` more than before, `peak`."""
    return _printed(_STREAM, folder, None)


def measured(folder: Path, cache: Path) -> dict[str, Any]:
    """List the folder in a process of its own, with the index in `cache` if there is one.

    Returns:
        `pictures`, `seconds` of each step, `megabytes` that the list takes, `peak` megabytes of the process.
    """
    return _printed(_MEASURE, folder, cache)


def _printed(program: str, folder: Path, cache: Path | None) -> dict[str, Any]:
    environment = {**os.environ, **({} if cache is None else {"XDG_CACHE_HOME": str(cache)})}
    line = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@command("python -m asr_bench.listing")
@click.option("--pictures", type=click.IntRange(min=100), multiple=True, default=(3_000_000,), help="Repeatable.")
@click.option("--shards", type=click.IntRange(min=1), help="Measure so many tar files instead of a folder.")
def main(pictures: tuple[int, ...], shards: int | None) -> None:
    """Measure memory and time of made data of several sizes."""
    for count in pictures:
        with tempfile.TemporaryDirectory(prefix="asr-listing-") as room:
            folder, cache = Path(room) / "data", Path(room) / "cache"
            if shards is not None:
                made_shards(folder, count, shards)
                click.echo(json.dumps({f"{shards} shards": streamed(folder)}))
                continue
            made_folder(folder, count)
            for name in ("without the index", "with the index"):
                click.echo(json.dumps({name: measured(folder, cache)}))
            sizes = [path.stat().st_size for path in cache.rglob("*.parquet")]
            click.echo(json.dumps({"index, megabytes": round(sum(sizes) / 1e6, 1)}))


if __name__ == "__main__":
    main()
