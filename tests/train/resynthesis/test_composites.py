"""asr-composite: one region of a photo is filled, everything else stays; asr-evaluate --regions measures it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from asr_runtime.media.image import read_image
from asr_train.cli import composite_command, evaluate_command
from asr_train.data.layouts import find_data
from asr_train.evaluation.regions import region_figures
from asr_train.resynthesis.composites import mask_path, region_mask

_FAST = "waifu2x-photo-x2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """A data folder with two whole photos and two whole generated pictures."""
    root = tmp_path_factory.mktemp("whole")
    for source, kind, names in (
        ("shop", "nature", ("real/blouse.jpg", "real/coffee.png")),
        ("generator", "ai", ("ai/sd3-1.jpg", "ai/sd3-2.jpg")),
    ):
        folder = root / source / "val" / kind
        folder.mkdir(parents=True)
        for name in names:
            cv2.imwrite(str(folder / Path(name).with_suffix(".png").name), read_image(examples / name))
    return root


def _run(data: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(composite_command, ["--data", str(data), "-o", str(out), *more])


def test_only_the_region_differs_and_the_mask_shows_it(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _run(whole, out, "--with", "pasted", "--with", _FAST, "--split", "val", "--side", "400")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"made": {"pasted": 2, _FAST: 2}, "failed": {}}
    data = find_data(out)
    assert {sample.source for sample in data.val} == {"partly_pasted", f"partly_{_FAST}"}
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        picture = out / row["picture"]
        photo, mixed = read_image(picture.parents[1] / "nature" / picture.name), read_image(picture)
        mask = read_image(mask_path(picture))[..., 0]
        changed = (photo != mixed).any(axis=2)
        assert changed[mask > 128].mean() > 0.5
        assert not changed[mask == 0].any()
        assert max(photo.shape[:2]) <= 400
        assert 0.05 < float(row["share"]) < 0.5
        assert bool(row["donor"]) == (row["way"] == "pasted")
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    assert _run(whole, out, "--with", "pasted", "--with", _FAST, "--split", "val", "--side", "400").exit_code == 0
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


@pytest.mark.parametrize("is_ellipse", [True, False])
def test_a_region_has_a_soft_edge_within_its_box(is_ellipse: bool) -> None:
    mask = region_mask((200, 300), (20, 40, 120, 160), is_ellipse)
    assert mask[80, 120] == 255
    assert {0, 255} < set(mask.ravel().tolist())
    outside = np.ones(mask.shape, bool)
    outside[20:140, 40:200] = False
    assert not mask[outside].any()


def test_windows_inside_the_region_are_compared_with_those_outside(whole: Path, tmp_path: Path) -> None:
    from asr_runtime import Detector

    out = tmp_path / "out"
    assert _run(whole, out, "--with", "pasted", "--split", "val", "--side", "400").exit_code == 0
    detector = Detector("asrnet-lite-tiny", device="cpu")
    [figures] = region_figures(detector, out, quality=None).values()
    inside, outside = [], []
    for picture in out.rglob("ai/*.png"):
        mask = read_image(mask_path(picture))[..., 0] / 255
        for window in detector.map(read_image(picture), 36):
            share = mask[window.y : window.y + window.size, window.x : window.x + window.size].mean()
            inside += [window.probability] * int(share >= 0.75)
            outside += [window.probability] * int(share <= 0.01)
    assert (figures["pictures"], figures["inside"], figures["outside"]) == (2, len(inside), len(outside))
    assert min(len(inside), len(outside)) > 0
    ranked = np.mean([(a > b) + (a == b) / 2 for a in inside for b in outside])
    assert figures["auroc"] == pytest.approx(float(ranked))
    assert figures["interval"][0] <= figures["auroc"] <= figures["interval"][1]
    shown = CliRunner().invoke(evaluate_command, ["--model", "asrnet-lite-tiny", "--data", str(out), "--regions"])
    assert shown.output.splitlines()[1].split()[:2] == ["pasted", "2"]


def test_mistakes_are_one_line(whole: Path, tmp_path: Path) -> None:
    for more, message in (
        (("--with", "taef2"), "taef2: no weights given"),
        (("--with", "pasted", "--side", "100"), "side 100: expected at least 256"),
        (("--with", "pasted", "--most", "0"), "most 0: expected at least 1"),
        (("--with", "pasted", "--split", "train"), "no images for the split 'train'"),
    ):
        done = _run(whole, tmp_path / "out", *more)
        assert (done.exit_code, done.stderr.count("\n"), message in done.stderr) == (2, 1, True), done.output
    small = tmp_path / "small" / "shop" / "val" / "nature"
    small.mkdir(parents=True)
    cv2.imwrite(str(small / "small.png"), np.zeros((100, 300, 3), np.uint8))
    done = _run(tmp_path / "small", tmp_path / "out", "--with", _FAST)
    assert (done.exit_code, "300 x 100 pixels" in done.stderr) == (1, True)
    for given, message in (
        (("--model", "asrnet-lite-tiny", "--data", str(whole)), "make them with asr-composite"),
        (("--checkpoint", "x.pth", "--data", str(whole)), "expected an exported file"),
    ):
        refused = CliRunner().invoke(evaluate_command, [*given, "--regions"])
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.output


def test_a_donor_is_found_among_many_sources_of_one_picture(whole: Path, tmp_path: Path, examples: Path) -> None:
    """The source is drawn once; drawn again for each donor, none fits."""
    data = tmp_path / "data"
    shutil.copytree(whole / "shop", data / "shop")
    for number in range(60):
        folder = data / f"generator{number}" / "val" / "ai"
        folder.mkdir(parents=True)
        shutil.copy(examples / "ai" / f"sd3-{1 + number % 2}.jpg", folder)
    done = _run(data, tmp_path / "out", "--with", "pasted", "--split", "val", "--side", "400")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["made"] == {"pasted": 2}
