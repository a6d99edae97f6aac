"""Whole videos get a rule of their own; a whole look at them is the default only where it ranks unseen clips better."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_training import tiny

from asr_models import load_checkpoint
from asr_runtime.contract import WholeLook, from_checkpoint
from asr_train.data.layouts import Sample
from asr_train.data.windows import window_places
from asr_train.fitting.fit import train
from asr_train.fitting.video_rules import ClipMargins, whole_video_rule
from asr_train.fitting.whole_look import whole_look

_RNG = np.random.default_rng(0)
_LABELS = np.arange(200) % 2


def _clips(signal: float) -> ClipMargins:
    samples = tuple(Sample(Path(str(i)), int(k), "s") for i, k in enumerate(_LABELS))
    margins = signal * (_LABELS - 0.5) + _RNG.normal(0, 1.0, 200)
    return ClipMargins(samples, _LABELS, margins, np.arange(200) < 150)


def _look() -> WholeLook:
    margins: NDArray[np.float64] = (_LABELS[:, None] - 0.5) + _RNG.normal(0, 1.0, (200, 5))
    look = whole_look(_LABELS, margins, window_places(5), 5, "here")
    assert look is not None
    return look


@pytest.mark.parametrize(("whole", "centre", "pays"), [(3.0, 1.0, True), (1.0, 3.0, False)])
def test_the_better_look_at_unseen_clips_decides(whole: float, centre: float, pays: bool) -> None:
    look, figures = whole_video_rule(_clips(whole), _clips(centre), _look(), "clips")
    assert (look.video is not None) == pays
    assert (figures["unseen_auroc"] > figures["unseen_centre_auroc"]) == pays
    assert figures["videos"] == 50
    if look.video is not None:
        assert look.video.calibration.fitted_on == "clips"


def test_clips_of_one_class_give_no_rule() -> None:
    clips = _clips(3.0)
    one = dataclasses.replace(clips, unseen=clips.unseen & (clips.labels == 1))
    assert whole_video_rule(one, clips, _look(), "clips")[1] == {}


def test_a_run_with_windows_calibrates_whole_videos(generators: Path, tmp_path: Path) -> None:
    config = tiny(generators, views=1, windows=5)
    run = train(config, tmp_path)
    figures = run.summary["val_video_whole"]
    whole = from_checkpoint(WholeLook, load_checkpoint(run.checkpoint).whole, "x")
    assert (whole.video is not None) == (figures["unseen_auroc"] > figures["unseen_centre_auroc"])
    assert len(list(tmp_path.glob("clips-*.npz"))) == 2
    assert "val_video_whole" not in train(dataclasses.replace(config, top=2), tmp_path).summary
