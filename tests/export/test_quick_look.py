"""Stops of quick looks: learned on pictures, written into the card, refused where they would change verdicts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from runtime_samples import WHOLE_CARD, build_model

from asr_export.precision_gate import labelled_halves
from asr_export.quick_look import add_quick_look, learn_stops
from asr_runtime import Detector, read_image
from asr_runtime.errors import ConfigurationError, GateError

_CARD = dataclasses.replace(
    WHOLE_CARD,
    whole=dataclasses.replace(WHOLE_CARD.whole, top=5),  # type: ignore[type-var]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "brightness.onnx"
    path.write_bytes(build_model(_CARD))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark ones are real, bright ones generated; brightness changes a little within each."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    for label, low, high in (("real", 20, 125), ("ai", 115, 235)):
        (folder / label).mkdir()
        for number in range(60):
            slope = np.linspace(-1, 1, 160)[:, None, None] * random.uniform(-12, 12)
            image = random.uniform(low, high) + slope + random.normal(0, 8, (160, 200, 3))
            cv2.imwrite(str(folder / label / f"{number}.png"), image.clip(0, 255).astype(np.uint8))
    return folder


def test_quick_looks_keep_the_verdicts_and_save_windows(model: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "quick.onnx"
    result = add_quick_look(model, pictures, output)
    detector = Detector(output, device="cpu", threads=1)
    assert detector.card.metrics["quick look"] == dataclasses.asdict(result)
    assert onnx.load(output).graph == onnx.load(model).graph
    _, judged = labelled_halves(pictures)
    looks = [(detector.look(image, "quick"), detector.look(image, "whole")) for image in map(read_image, judged.paths)]
    assert result.pictures == len(judged.paths)
    assert result.changed == np.mean([quick.verdict != whole.verdict for quick, whole in looks])
    assert result.windows == sum(len(quick.windows) for quick, _ in looks) / sum(len(w.windows) for _, w in looks)
    assert result.windows < 0.7
    assert result.changed <= result.changed_by_jpeg96


def test_stops_that_turn_verdicts_around_are_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    _, judged = labelled_halves(pictures)
    random, size = np.random.default_rng(0), _CARD.preprocess.size
    even = [tmp_path / f"{brightness}.png" for brightness in range(20, 240, 10)]  # their windows agree
    for path in even:
        image = int(path.stem) + random.integers(-3, 4, (160, 200, 3))
        cv2.imwrite(str(path), image.astype(np.uint8))
    learned = dataclasses.replace(judged, paths=tuple(even), labels=np.array([int(p.stem) > 128 for p in even]))
    two_bright = random.integers(0, 10, (640, 800, 3), dtype=np.uint8)
    assert _CARD.whole is not None
    for row, column in _CARD.whole.corners(640, 800, size)[:2]:
        two_bright[row : row + size, column : column + size] += 205
    cv2.imwrite(str(path := tmp_path / "two_bright.png"), two_bright)
    others = dataclasses.replace(judged, paths=(*judged.paths, path), labels=np.append(judged.labels, 0))
    with pytest.raises(GateError, match=r"turns 1 around, where JPEG 96 changes \d\.\d% and turns 0 around"):
        learn_stops(Detector(model, device="cpu", threads=1), learned, others)


def test_no_quick_look_ends_after_one_window(model: Path, pictures: Path) -> None:
    card, _ = learn_stops(Detector(model, device="cpu", threads=1), *labelled_halves(pictures))
    assert card.whole is not None
    assert not card.whole.stops_at([4.0])  # the largest margin of this model
    assert not card.whole.stops_at([-4.0])
    assert card.whole.stops_at([4.0, 4.0])


def test_a_card_that_averages_the_largest_margins_only_is_refused(pictures: Path) -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    with pytest.raises(ConfigurationError, match="no look at the mean of several windows"):
        learn_stops(detector, *labelled_halves(pictures))


def test_a_panorama_that_no_jpeg_can_hold_is_judged_as_well(model: Path, pictures: Path, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(10, 30, (160, 65_501, 3), dtype=np.uint8)
    cv2.imwrite(str(panorama := tmp_path / "panorama.png"), dark)
    learned, judged = labelled_halves(pictures)
    more = dataclasses.replace(judged, paths=(*judged.paths, panorama), labels=np.append(judged.labels, 0))
    _, result = learn_stops(Detector(model, device="cpu", threads=1), learned, more)
    assert result.pictures == len(judged.paths) + 1


def test_the_command_takes_an_exported_file(model: Path, pictures: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", "from asr_export.cli import export_command; export_command()", model]
    done = subprocess.run(
        [*line, "--quick-look", pictures, "-o", "q.onnx", "--triton", "models"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().startswith("q.onnx: quick looks take ")
    assert (tmp_path / "models" / "q" / "1" / "model.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()
    nothing = subprocess.run(line, cwd=tmp_path, capture_output=True, check=False)
    assert nothing.stderr.decode().endswith(
        ": is exported already; expected --triton DIR, --quick-look DIR, --card FILE or --precision with it\n"
    )
