"""asr-resynthesise makes a data folder of pairs; a run that was stopped goes on; mistakes are one line."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import read_image
from asr_train.cli import resynthesise_command
from asr_train.data.layouts import find_data
from asr_train.evaluation.evaluate import evaluate
from asr_train.evaluation.report import report_text
from asr_train.figures.pairs import content_matched_pairs
from asr_train.figures.scoring import Scored
from asr_train.resynthesis.resynthesise import resynthesise

_FAST = "waifu2x-photo-x2"


def _run(data: Path, out: Path, *more: str) -> Result:
    arguments = ["--data", str(data), "-o", str(out), "--with", _FAST, "--side", "64", *more]
    return CliRunner().invoke(resynthesise_command, arguments)


def _contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


def test_the_folder_holds_lossless_windows_and_their_twins_with_their_splits(generators: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _run(generators, out, "--with", "realesrgan-animevideo-x4")
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)
    assert counts["made"] == {_FAST: 24, "realesrgan-animevideo-x4": 24}
    assert counts["failed"] == {}
    data = find_data(out)
    assert {s.source for s in data.val} == {f"resynthesised_{_FAST}", "resynthesised_realesrgan-animevideo-x4"}
    with (out / "index.csv").open(newline="") as file:
        rows = {row["twin"]: row for row in csv.DictReader(file)}
    for split in ("train", "val"):
        pairs = content_matched_pairs(data.split(split))
        assert len(pairs) == {"train": 32, "val": 16}[split]
        for photo, twin in pairs:
            row = rows[twin.path.relative_to(out).as_posix()]
            top, left, height, width = (int(row[key]) for key in ("top", "left", "height", "width"))
            original = read_image(generators / row["photo"])
            window = read_image(photo.path)
            assert np.array_equal(window, original[top : top + height, left : left + width])
            assert read_image(twin.path).shape == window.shape
            assert (row["split"], row["source"]) == (split, row["photo"].partition("/")[0])
    assert 20 < counts["psnr"][_FAST] < 45


def test_a_run_goes_on_where_it_was_stopped(generators: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = threading.Event()
    stopped.set()
    data = find_data(generators)
    assert resynthesise(data, out, [_FAST], side=64, stop=stopped).made == {_FAST: 0}
    assert json.loads(_run(generators, out).stdout)["made"] == {_FAST: 24}
    before = _contents(out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}

    lost = sorted(out.rglob("ai/*.png"))[3]
    lost.unlink()
    index = out / "index.csv"
    index.write_text(index.read_text()[:-20])  # killed while writing its last line
    again = json.loads(_run(generators, out).stdout)
    assert (again["made"], again["present"]) == ({_FAST: 2}, {_FAST: 22})
    assert _contents(out) == before
    assert sum(p.stat().st_mtime_ns != time for p, time in times.items()) <= 4
    assert json.loads(_run(generators, out).stdout)["made"] == {_FAST: 0}


def test_pairs_are_not_made_of_pairs(generators: Path) -> None:
    for _ in range(2):
        done = _run(generators, generators, "--split", "val")
    assert json.loads(done.stdout)["present"] == {_FAST: 8}
    assert find_data(generators).train  # the photos' own sources are untouched


def test_a_twin_without_any_trace_is_no_fake(tmp_path: Path) -> None:
    photos = tmp_path / "data" / "walls" / "val" / "nature"
    photos.mkdir(parents=True)
    cv2.imwrite(str(photos / "black.png"), np.zeros((64, 64, 3), np.uint8))
    done = _run(tmp_path / "data", tmp_path / "out")
    counts = json.loads(done.stdout)
    assert (done.exit_code, counts["made"], counts["identical"], counts["psnr"]) == (0, {_FAST: 0}, {_FAST: 1}, {})
    assert _contents(tmp_path / "out") == {}


def test_an_evaluation_reports_pairs_where_there_are_any(generators: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(generators, out, "--split", "val")
    samples = find_data(out).val
    for shown, given in (("100.0%", np.array([s.label for s in samples], float)), ("50.0%", np.full(16, 0.5))):
        scored = Scored(samples, np.array([s.label for s in samples]), given, given, {})
        evaluation = evaluate(scored, {})
        assert evaluation.pairs is not None
        [figures] = evaluation.pairs.values()
        assert (figures["pairs"], f"{100 * figures['ranked_right']:.1f}%") == (8, shown)
        [line] = [line for line in report_text(evaluation).splitlines() if shown in line and "resynthesised_" in line]
        assert line.split()[1] == "8"
    others = find_data(generators).val
    unpaired = Scored(others, np.array([s.label for s in others]), np.full(16, 0.5), np.zeros(16), {})
    assert evaluate(unpaired, {}).pairs is None


def test_photos_that_give_no_pair_are_named_and_the_others_go_on(generators: Path, tmp_path: Path) -> None:
    photos = generators / "photos" / "val" / "nature"
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = _run(generators, tmp_path / "out", "--split", "val")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["made"] == {_FAST: 8}
    assert "broken.jpg" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_cannot_work_is_refused_in_one_line(generators: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _run(generators, out, "--split", "val").exit_code == 0
    for more, message in (
        (("--side", "72"), "holds windows of side 64; take --side 64 or another folder"),
        (("--side", "60"), "side 60: expected a multiple of 8"),
        (("--workers", "0"), "workers 0: expected at least 1"),
        (("--with", "taef2"), "taef2: no weights given"),
        (("--split", "test"), "no images for the split 'test'"),
    ):
        done = _run(generators, out, *more)
        assert (done.exit_code, done.stderr.count("\n"), message in done.stderr) == (2, 1, True), done.output
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "index.csv").write_text("path,label\n")
    with pytest.raises(ConfigurationError, match="not written by asr-resynthesise"):
        resynthesise(find_data(generators), foreign, [_FAST], side=64)
    (tmp_path / "file").touch()
    done = _run(generators, tmp_path / "file" / "out")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1), done.output


@pytest.mark.heavy
def test_two_processes_make_the_same_files(generators: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert _run(generators, one, "--split", "val").exit_code == 0
    assert _run(generators, two, "--split", "val", "--workers", "2").exit_code == 0
    assert _contents(one) == _contents(two)
    assert (one / "index.csv").read_text() == (two / "index.csv").read_text()
