"""Evaluation on real pictures: content is controlled for, figures are compared, and what is impossible is reported."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from runtime_samples import CARD, build_model
from sklearn.metrics import roc_auc_score

from asr_models import Checkpoint, create_model, save_checkpoint
from asr_runtime import Detector
from asr_runtime.contract import Calibration, Decision, OperatingPoint, Preprocess, WholeLook
from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import read_image
from asr_train.data.augment import equalise
from asr_train.data.layouts import find_data
from asr_train.evaluation.evaluate import Evaluation, evaluate_model
from asr_train.figures.metrics import binary_metrics


def _checkpoint(folder: Path, training: Mapping[str, Any]) -> Path:
    """An untrained network that says how it was trained."""
    torch.manual_seed(0)
    network = create_model("asrnet", dim=4)
    path = folder / "x.pth"
    facts: dict[str, Any] = {
        "calibration": {"temperature": 1.0, "shift": 0.0, "fitted_on": "nothing"},
        "decision": {"real_below": 0.4, "ai_from": 0.6, "rule": "a test"},
        "operating_points": ({"false_positive_rate": 0.05, "threshold": 0.6, "true_positive_rate": 0.5},),
    }
    preprocess = {"mode": "crop", "size": 48}
    save_checkpoint(path, Checkpoint("asrnet", {"dim": 4}, preprocess, network, **facts, training=training))
    return path


def _evaluate(checkpoint: Path, data: Path, **options: Any) -> Evaluation:
    return evaluate_model(None, checkpoint, data, device="cpu", **options)


def test_pictures_are_reencoded_by_default_and_the_figures_without_it_are_reported_too(
    generators: Path, tmp_path: Path
) -> None:
    path = _checkpoint(tmp_path, {})
    equal, raw = _evaluate(path, generators), _evaluate(path, generators, equalise=None)
    assert equal.protocol["re-encoding"] == "every image at JPEG 90"
    assert raw.raw is None
    assert equal.raw == raw.overall
    assert not np.array_equal(equal.scored.probability, raw.scored.probability)
    assert equal.reencoding is None


def test_files_that_cannot_be_read_are_named_and_the_others_measured(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = generators / "sd3" / "val" / "ai"
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    evaluation = _evaluate(_checkpoint(tmp_path, {}), generators)
    assert (evaluation.overall["images"], evaluation.protocol["unreadable"]) == (16, ["empty.png", "gone.jpg"])
    assert f"skipped: {folder / 'empty.png'}: the file is empty" in caplog.text
    assert f"skipped: {folder / 'gone.jpg'}: cannot be read (No such file or directory)" in caplog.text


def test_the_content_only_probe_is_fitted_on_the_train_split_and_reported_beside_the_model(
    generators: Path, tmp_path: Path
) -> None:
    evaluation = _evaluate(_checkpoint(tmp_path, {}), generators)
    assert evaluation.scored.content is not None
    assert evaluation.content_probe is not None
    assert evaluation.content_probe["auroc"] == pytest.approx(
        roc_auc_score(evaluation.scored.labels, evaluation.scored.content)
    )
    assert evaluation.content_probe["fitted_images"] == 28
    expected = binary_metrics(evaluation.scored.labels, evaluation.scored.probability, evaluation.scored.content)
    assert evaluation.overall["ca_auroc"] == expected["ca_auroc"]
    assert "does not say what it was trained on" in evaluation.protocol["content held fixed"]


@pytest.mark.parametrize(("left_out", "option"), [(["sd3"], ()), ([], ("sd3",)), (["sd3"], ("sd3",))])
def test_the_probe_sees_no_more_than_the_model_did(
    generators: Path, tmp_path: Path, left_out: list[str], option: tuple[str, ...]
) -> None:
    fingerprint = find_data(generators).without(left_out).summary()["fingerprint"]
    path = _checkpoint(tmp_path, {"left_out": left_out, "data": {"fingerprint": fingerprint}})
    evaluation = _evaluate(path, generators, leave_out=option)
    assert evaluation.content_probe is not None
    assert evaluation.content_probe["fitted_images"] == 28 - 8
    note = evaluation.protocol["content held fixed"]
    assert "without sd3 (20 images): the model's own training data" in note
    assert ("sd3" in evaluation.by_source) is not bool(option)


def test_other_data_than_the_model_was_trained_on_is_reported(generators: Path, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, {"data": {"fingerprint": "0" * 64}})
    assert "not the data that the model was trained on" in _evaluate(path, generators).protocol["content held fixed"]


def test_a_test_set_without_training_images_needs_them_named(generators: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    for folder in generators.glob("*/val"):
        shutil.copytree(folder, bare / folder.parent.name / "test")
    path = _checkpoint(tmp_path, {})
    without = _evaluate(path, bare)
    assert (without.scored.content, without.content_probe, without.overall["ca_auroc"]) == (None, None, None)
    assert "--content-data DIR" in without.protocol["content held fixed"]
    named = _evaluate(path, bare, content_data=generators)
    assert named.content_probe is not None
    assert "train split of generators (28 images)" in named.protocol["content held fixed"]


def test_pictures_too_small_for_a_thumbnail_have_no_content_adjusted_figure(folders: Path, tmp_path: Path) -> None:
    for file in sorted(folders.rglob("*.*g")) + sorted(folders.rglob("*.webp")):
        cv2.imwrite(str(file), np.ascontiguousarray(read_image(file)[:64, :64]))
    evaluation = _evaluate(_checkpoint(tmp_path, {}), folders)
    assert evaluation.content_probe is None
    assert "images of 64 px show traces even in a thumbnail" in evaluation.protocol["content held fixed"]


def test_the_shift_at_jpeg_96_is_measured_against_the_files_as_they_are(generators: Path, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, {})
    evaluation = _evaluate(path, generators, reencoding_shift=True)
    moved, at_96 = evaluation.reencoding, _evaluate(path, generators, equalise=96)
    assert moved is not None
    assert evaluation.raw is not None
    assert moved["quality"] == 96
    assert moved["accuracy"] == at_96.overall["accuracy"]
    assert moved["raw_accuracy"] == evaluation.raw["accuracy"]
    assert moved["shift"] == pytest.approx(moved["accuracy"] - moved["raw_accuracy"])


def test_an_exported_file_is_measured_from_all_of_the_picture(generators: Path, tmp_path: Path) -> None:
    whole = WholeLook(
        windows=((0.5, 0.5), (0.0, 0.0), (1.0, 1.0)),
        top=2,
        calibration=Calibration(0.8, 0.2),
        decision=Decision(0.25, 0.75, "of windows"),
        operating_points=(OperatingPoint(0.05, 0.75, 0.5),),
        is_default=True,
    )
    card = dataclasses.replace(CARD, preprocess=Preprocess("crop", 32), whole=whole)
    path = str(tmp_path / "whole.onnx")
    Path(path).write_bytes(build_model(card, size=32))
    evaluation = evaluate_model(path, None, generators, device="cpu", look="auto")
    detector = Detector(path, device="cpu")
    first = read_image(evaluation.scored.samples[0].path)
    seen = detector.look(equalise(first, 90), "whole")
    assert seen.kind == "whole"
    assert evaluation.protocol["look"] == "windows all over each image"
    assert (evaluation.scored.probability[0], evaluation.scored.margins[0]) == (seen.probability, seen.margin)
    assert evaluation.verdicts is not None
    assert (evaluation.verdicts["rule"], evaluation.verdicts["ai_from"]) == ("of windows", 0.75)
    centre = evaluate_model(path, None, generators, device="cpu")
    assert centre.protocol["look"] == "the centre of each image"
    assert not np.array_equal(centre.scored.margins, evaluation.scored.margins)


def test_a_checkpoint_is_measured_from_the_centre_only(generators: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected an exported file, --model X\.onnx"):
        _evaluate(_checkpoint(tmp_path, {}), generators, look="whole")


def test_the_models_own_thresholds_are_measured_where_it_has_them(generators: Path, tmp_path: Path) -> None:
    verdicts = _evaluate(_checkpoint(tmp_path, {}), generators).verdicts
    assert verdicts is not None
    assert (verdicts["rule"], verdicts["real_below"], verdicts["ai_from"]) == ("a test", 0.4, 0.6)
    assert set(verdicts["operating_points"][0]["found_by_source"]) == {"photos", "snaps"}
    exported = evaluate_model("asrnet-lite", None, generators, device="cpu").verdicts
    assert exported is not None
    assert [p["false_positive_rate"] for p in exported["operating_points"]] == [0.01, 0.05]
