"""Tar shards: read byte for byte, balanced and shuffled, over HTTP; what is damaged costs only itself."""

from __future__ import annotations

import http.server
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from click.testing import CliRunner
from live_samples import serving
from scipy.stats import kstest, spearmanr

from asr_bench.listing import made_shards, streamed
from asr_runtime.errors import ConfigurationError, DatasetError, SourceError
from asr_runtime.media.image import read_image
from asr_train.cli import shards_command, train_command
from asr_train.data.batches import TrainingImages
from asr_train.data.draws import BalancedSampler, ShardOrder
from asr_train.data.layouts import find_data, picture_counts
from asr_train.data.shards import INDEX, ShardSample, ShardSamples
from asr_train.data.write_shards import write_shards

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:.*isinstance.treespec, LeafSpec.*",
    "ignore:.*lr_scheduler.step.*before.*",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # webdataset leaves files open; ours stay open for the next read
    "ignore::ResourceWarning",
)

_SMALL = 60_000  # bytes of a tar file: some for the pictures of the tests
_TRAINED = ["--dim", 4, "--crop-size", 48, "--batch-size", 4, "--epochs", 1, "--workers", 0]


@pytest.fixture(scope="module")
def shards(pristine_generators: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shards"
    write_shards(find_data(pristine_generators), folder, _SMALL, 0)
    return folder


@pytest.fixture
def own(shards: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for file in shards.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that sends parts of files, as object stores do."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first = int(asked[1]) if asked else 0
        part = content[first : int(asked[2]) + 1 if asked and asked[2] else len(content)]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(own: Path) -> Iterator[str]:
    """Serves `own`."""

    def handler(*given: object) -> _Ranges:
        return _Ranges(*given, directory=str(own))  # type: ignore[arg-type]

    with serving(handler) as url:
        yield url


def test_shards_hold_the_files_and_webdataset_reads_them(pristine_generators: Path, shards: Path) -> None:
    data, read = find_data(pristine_generators), find_data(shards)
    assert read.layout == "shards"
    assert len(list(shards.glob("train-*.tar"))) > 3
    for split in ("train", "val"):
        before, after = getattr(data, split), getattr(read, split)
        assert picture_counts(after) == picture_counts(before)
        contents = {s.path.read_bytes(): (s.label, s.source) for s in before}
        assert {s.data(): (s.label, s.source) for s in after} == contents
        assert [s.path.parent.name for s in after] == sorted(s.path.parent.name for s in after)
        urls = [str(path) for path in sorted(shards.glob(f"{split}-*.tar"))]
        rows = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
        for row, sample in zip(rows, after, strict=True):
            facts = json.loads(row["json"])
            assert (facts["label"], facts["source"]) == (sample.label, sample.source)
            assert np.array_equal(sample.read(), read_image(pristine_generators / facts["path"]))
    assert read.fingerprint == find_data(shards).fingerprint


def test_the_command_writes_shards_once(pristine_generators: Path, tmp_path: Path) -> None:
    arguments = ["--data", pristine_generators, "-o", tmp_path / "out", "--leave-out", "sd3"]
    done = CliRunner().invoke(shards_command, [*map(str, arguments)])
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'out'}: 32 pictures in 2 tar files\n")
    assert {source for _, source in picture_counts(find_data(tmp_path / "out").train)} == {
        "midjourney",
        "photos",
        "snaps",
    }
    again = CliRunner().invoke(shards_command, [*map(str, arguments)])
    assert (again.exit_code, "holds index.parquet already" in again.output) == (3, True)


def test_training_from_shards_streams_them_over_http(server: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(train_command, [*map(str, ["--data", server, "--runs", tmp_path / "runs", *_TRAINED])])
    assert done.exit_code == 0, done.output
    (run,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["unreadable"], summary["data"]["layout"]) == ([], "shards")
    more = CliRunner().invoke(train_command, ["--resume", str(run), "--epochs", "2"])
    assert more.exit_code == 0, more.output


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """3,000,000 rows in 100 shards against 300,000 rows in 10: pictures of the same number of shards are mixed."""
    used = {}
    for rows, shards in ((300_000, 10), (3_000_000, 100)):
        made_shards(tmp_path / str(rows), rows, shards)
        measured = streamed(tmp_path / str(rows))
        assert measured["pictures"] == rows
        used[rows] = measured["megabytes"]
    assert used[3_000_000] - used[300_000] < 50, used


def test_draws_are_balanced_and_shuffled(tmp_path: Path) -> None:
    """Sources by their shares; a picture's place in the index says nothing of when it is drawn, beyond its shards."""
    made_shards(tmp_path / "made", 40_000, 40)
    samples = find_data(tmp_path / "made").train
    assert isinstance(samples, ShardSamples)
    order = ShardOrder(samples, "none", 40_000, 0)
    first, again = [i for i, _ in order], [i for i, _ in order]
    assert first == again
    assert sorted(first) == list(range(40_000))  # every picture once in a pass
    order.set_epoch(1)
    second = [i for i, _ in order]
    places = np.argsort(first)
    # Across passes, and within the shards that are mixed, nothing is kept of the order.
    assert abs(spearmanr(places, np.argsort(second)).statistic) < 0.25
    inside = places[:1000] % 4000
    assert kstest(inside / 4000, "uniform").pvalue > 0.001
    assert abs(spearmanr(inside, np.arange(1000)).statistic) < 0.1
    neighbours = {frozenset(pair) for pair in itertools.pairwise(first)}
    kept = sum(frozenset(pair) in neighbours for pair in itertools.pairwise(second))
    assert kept < 40  # of 39,999 neighbours


def test_small_sources_are_drawn_more_often_as_from_folders(shards: Path, pristine_generators: Path) -> None:

    streamed, listed = find_data(shards).train, find_data(pristine_generators).train
    assert isinstance(streamed, ShardSamples)
    shares = []
    for samples, sampler in ((streamed, ShardOrder), (listed, BalancedSampler)):
        drawn = Counter(samples[i].source for i, _ in sampler(samples, "sources", 4000, 0))
        shares.append({source: n / 4000 for source, n in drawn.items()})
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_a_missing_or_cut_shard_costs_its_own_pictures_and_one_line(own: Path, tmp_path: Path) -> None:
    whole = len(find_data(own).train)
    (own / "train-000001.tar").unlink()
    cut = own / "train-000002.tar"
    cut.write_bytes(cut.read_bytes()[:20_000])
    done = CliRunner().invoke(train_command, [*map(str, ["--data", own, "--runs", tmp_path / "runs", *_TRAINED])])
    assert done.exit_code == 0, done.output
    output = " ".join(done.output.split())
    assert "missing: train-000001.tar, with" in output
    assert output.count("(no such file); its pictures are left out") == 1
    (run,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert 2 <= len(summary["unreadable"]) < whole


def test_a_damaged_picture_or_row_is_left_out_and_named(own: Path) -> None:
    from asr_models import InputTransform
    from asr_train.data.augment import Augment

    table = pq.read_table(own / INDEX)
    rows = table.to_pylist()
    rows[0]["offset"] += 7
    rows[1]["label"] = 9
    rows[2]["size"] = None
    groups = pq.ParquetFile(own / INDEX).metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    with pq.ParquetWriter(own / INDEX, table.schema) as writer:
        start = 0
        for size in sizes:
            writer.write_table(pa.Table.from_pylist(rows[start : start + size], schema=table.schema), size)
            start += size
    samples = find_data(own).train
    images = TrainingImages(samples, InputTransform("crop", 48), Augment())
    problems = [images[(i, 0)].problem for i in range(len(samples))]
    assert "the tar file and its row of index.parquet do not agree" in problems[0]
    assert f"{INDEX}: row 1 of train-000000.tar is damaged" in problems[1]
    assert f"{INDEX}: row 2 of train-000000.tar is damaged" in problems[2]
    assert set(problems[3:]) == {""}
    assert isinstance(samples[0], ShardSample)
    with pytest.raises(SourceError):
        samples[0].read()


@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing PAR1", "cut"])
def test_a_damaged_index_is_refused_in_one_line(own: Path, damage: bytes | str) -> None:
    content = (own / INDEX).read_bytes()
    (own / INDEX).write_bytes(content[:-100] if isinstance(damage, str) else damage)
    done = CliRunner().invoke(train_command, ["--data", str(own)])
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert f"{INDEX}: cannot be read" in done.output


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9/shards", "http://127.0.0.1:9/shards/index.parquet: cannot be read"),
        ("s3://bucket/shards", "s3"),
        ("nothing://x", "nothing"),
    ],
)
def test_a_store_that_cannot_be_reached_is_named_in_one_line(address: str, message: str) -> None:
    done = CliRunner().invoke(train_command, ["--data", address])
    assert (done.exit_code, done.output.count("\n"), message in done.output) == (2, 1, True), done.output


def test_what_shards_cannot_do_is_refused(shards: Path) -> None:
    message = "--leave-out does not work on shards; use asr-shards --leave-out"
    done = CliRunner().invoke(train_command, ["--data", str(shards), "--leave-out", "sd3"])
    assert (done.exit_code, message in " ".join(done.output.split())) == (2, True), done.output
    with pytest.raises(ConfigurationError, match="per-source"):
        find_data(shards).thinned(1, 1)
    with pytest.raises(DatasetError, match="no such folder"):
        find_data(shards / "nowhere")
