"""Write a data folder as tar shards with a Parquet index (the layout `shards`)."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from rich.console import Console
from rich.progress import track

from asr_runtime.errors import OutputError
from asr_runtime.whole_file import whole_file
from asr_train.data.layouts import DataFolder, Sample
from asr_train.data.roles import SPLITS
from asr_train.data.shards import INDEX

__all__ = ["write_shards"]

_SCHEMA = pa.schema(
    {
        "key": pa.string(), "offset": pa.int64(), "size": pa.int64(), "crc32": pa.int64(), "label": pa.int8(),
        "source": pa.string(), "path": pa.string(),
    }
)  # fmt: skip


def write_shards(data: DataFolder, folder: Path, shard_bytes: int, seed: int) -> list[str]:
    """Deal the pictures of every split to tar files at random, byte for byte as they are.

    Each tar file holds, for every picture, the picture and a JSON file with label, source and path, under one key, as
    WebDataset expects. The index is written last, so a run that was stopped leaves no folder that looks finished.

    Args:
        data: the pictures.
        folder: new, or of a run that was stopped.
        shard_bytes: pictures of so many bytes, or the first more, make a tar file.
        seed: of the order.

    Returns:
        Names of the tar files.

    Raises:
        SourceError: a picture cannot be read.
        OutputError: the folder holds an index already, or cannot be written.
    """
    if (folder / INDEX).exists():
        raise OutputError(f"{folder}: holds {INDEX} already; expected a new folder")
    facts: dict[str, Any] = {"schema": 1, "shards": [], "counts": {}}
    tables: list[pa.Table] = []
    rng = np.random.default_rng(seed)
    for split in SPLITS:
        samples: Sequence[Sample] = getattr(data, split)
        counts = Counter((s.label, s.source) for s in samples)
        facts["counts"][split] = [[label, source, n] for (label, source), n in sorted(counts.items())]
        order = rng.permutation(len(samples)).tolist()
        console = Console(stderr=True)
        waiting: list[tuple[Sample, bytes]] = []
        size = 0
        for i in track(order, split, console=console, transient=True, disable=not console.is_terminal):
            waiting.append((samples[i], samples[i].data()))
            size += len(waiting[-1][1])
            if size >= shard_bytes:
                tables.append(_write(data.root, folder, split, facts["shards"], waiting))
                waiting, size = [], 0
        if waiting:
            tables.append(_write(data.root, folder, split, facts["shards"], waiting))
    schema = _SCHEMA.with_metadata({"asr.shards": json.dumps(facts)})
    with whole_file(folder / INDEX) as part, pq.ParquetWriter(part, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=max(1, len(table)))
    return [shard["name"] for shard in facts["shards"]]


def _write(
    root: Path, folder: Path, split: str, shards: list[dict[str, Any]], waiting: list[tuple[Sample, bytes]]
) -> pa.Table:
    """Write one tar file; return its rows of the index."""
    number = sum(shard["split"] == split for shard in shards)
    name = f"{split}-{number:06d}.tar"
    rows: list[dict[str, Any]] = []
    with whole_file(folder / name) as part:
        with webdataset.TarWriter(str(part), mtime=0) as tar:
            for place, (sample, content) in enumerate(waiting):
                key, suffix = f"{split}{number:06d}{place:06d}", sample.path.suffix.lower().lstrip(".")
                path = sample.path.relative_to(root).as_posix()
                facts = {"label": sample.label, "source": sample.source, "path": path}
                tar.write({"__key__": key, suffix: content, "json": json.dumps(facts).encode()})
                rows.append({**facts, "key": f"{key}.{suffix}", "size": len(content), "crc32": zlib.crc32(content)})
        with tarfile.open(part) as read:
            at = {member.name: member.offset_data for member in read}
    for row in rows:
        row["offset"] = at[row["key"]]
    shards.append({"name": name, "split": split, "pictures": len(rows), "sha256": _sha256(folder / name)})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
