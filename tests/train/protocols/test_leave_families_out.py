"""Families and kinds left out: one extraction, thresholds without them, decisions of both looks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asr_models import load_checkpoint
from asr_runtime.contract import WholeLook, from_checkpoint
from asr_runtime.errors import DatasetError
from asr_train.commands.train import train_command
from asr_train.data.families import read_families
from asr_train.data.layouts import find_data
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import ClosedFormConfig, recipe
from asr_train.fitting.fit import train
from asr_train.protocols.leave_families_out import families_protocol


@pytest.fixture
def data(generators: Path) -> Path:
    """Two generators, one of them later, and two kinds of photos, with their table beside them."""
    for split in ("train", "val"):
        shutil.copytree(generators / "photos" / split / "nature", generators / "scans" / split / "nature")
    table = "source,label,family,year\nsd3,1,Stable Diffusion,2024\nmidjourney,1,Midjourney,2022\n"
    (generators.parent / "families.csv").write_text(table + "photos,0,phone photo,\nscans,0,scan,\n")
    return generators


def _config(data: Path) -> ClosedFormConfig:
    config = recipe(
        "asrnet-lite", options={"blocks": 2}, data=str(data), views=1, windows=5, batch_size=4, workers=0, ridge=1.0
    )
    assert isinstance(config, ClosedFormConfig)
    return dataclasses.replace(config, preprocess={**config.preprocess, "size": 48})


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        ("leave-one-family-out", {"Midjourney", "Stable Diffusion"}),
        ("leave-one-photo-kind-out", {"phone photo", "scan"}),
        ("leave-one-family-and-photo-kind-out", {"Midjourney", "Stable Diffusion"}),
        ("leave-later-generators-out", {"Stable Diffusion"}),
    ],
)
def test_every_protocol_judges_what_it_left_out(data: Path, tmp_path: Path, protocol: str, names: set[str]) -> None:
    families = read_families(data.parent / "families.csv")
    runs = tmp_path / "runs"
    result = families_protocol(protocol, _config(data), families, runs, at_least=2, progress=False)
    assert set(result["generators"]) == names
    assert set(result["decisions"]) == {"centre", "whole"}
    assert 0 <= result["mean_auroc"] <= 1
    table = result["decisions"]["whole"]
    judged = table["real" if protocol == "leave-one-photo-kind-out" else "ai"]["families"]
    assert set(judged) == names
    assert json.loads((runs / f"{protocol}.json").read_text()) == result


def test_too_few_pictures_are_refused(data: Path, tmp_path: Path) -> None:
    families = read_families(data.parent / "families.csv")
    with pytest.raises(DatasetError, match="no family with 99 validation images"):
        families_protocol("leave-one-family-out", _config(data), families, tmp_path / "runs", at_least=99)


def test_margins_for_calibration_come_from_heads_without_the_family(data: Path, tmp_path: Path) -> None:
    config = _config(data)
    families = read_families(data.parent / "families.csv")
    solved = ClosedForm(pretrained(config), config, find_data(data), tmp_path / "runs", families)
    margins = solved._unseen_windows(())
    rows = [i for i, sample in enumerate(solved._train) if sample.source == "sd3"]
    group = next(group for group in solved._together if "sd3" in group)
    expected = solved.head(group)(solved.table.windows[rows])
    np.testing.assert_allclose(margins[rows], expected)


def test_the_checkpoint_carries_the_whole_look(data: Path, tmp_path: Path) -> None:
    run = train(_config(data), tmp_path / "runs")
    whole = from_checkpoint(WholeLook, load_checkpoint(run.checkpoint).whole, "checkpoint")
    assert (len(whole.windows), whole.top) == (5, 5)
    assert "never saw its family of generators or its kind of photos" in whole.calibration.fitted_on


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model asrnet --protocol leave-one-family-out", "use asrnet-lite"),
        ("--model asrnet-lite --protocol leave-one-family-out", "needs --families FILE"),
        ("--model asrnet-lite --windows 5 --top 6", "top 6: expected 1 to 5"),
        ("--model asrnet-lite --windows 4", "windows 4: expected one of 1, 5, 9"),
    ],
)
def test_the_command_says_what_is_missing(generators: Path, line: str, message: str) -> None:
    done = CliRunner().invoke(train_command, [*line.split(), "--data", str(generators)])
    assert (done.exit_code, message in done.output) == (2, True), done.output
