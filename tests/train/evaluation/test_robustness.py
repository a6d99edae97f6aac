"""Robustness on the pictures of the repository: the protocol, the sample, and what a known detector shows."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_runtime.contract import Decision
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_runtime.media.image import read_image
from asr_train.cli import evaluate_command
from asr_train.data.augment import equalise
from asr_train.data.degradations import FAMILIES, Degradation
from asr_train.data.layouts import Sample
from asr_train.evaluation.robustness import FIGURES, robustness, subsample
from asr_train.figures.scoring import Scored


def _samples(folder: Path) -> list[Sample]:
    samples = []
    for label, name in enumerate(("real", "ai")):
        samples += [Sample(p, label, p.name.split("-")[0]) for p in sorted((folder / name).iterdir())]
    return samples


@pytest.fixture
def sharpened(examples: Path, tmp_path: Path) -> list[Sample]:
    """Photos, and the same photos under fine stripes: the second class is known by its sharpness."""
    samples = []
    for path in sorted((examples / "real").iterdir()):
        image = read_image(path)[:64, :64]
        striped = image.copy()
        striped[:, ::2] = cv2.add(striped[:, ::2], np.array([40.0, 40, 40, 0]))
        for label, pixels in enumerate((cv2.GaussianBlur(image, (0, 0), 2), striped)):
            file = tmp_path / f"{path.stem}-{label}.png"
            cv2.imwrite(str(file), pixels)
            samples.append(Sample(file, label, "striped" if label else "photos"))
    return samples


class _Sharpness:
    """A detector without a network: fine detail means AI-generated. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, Degradation | None]] = []

    def __call__(self, samples: Sequence[Sample], quality: int | None, degradation: Degradation | None) -> Scored:
        self.asked.append((quality, degradation))
        probability = []
        for sample in samples:
            image = read_image(sample.path)
            image = image if degradation is None else degradation(image)
            image = image if quality is None else equalise(image, quality)
            detail = np.abs(np.diff(image.astype(float), axis=1)).mean()
            probability.append(detail / (detail + 15))
        labels = np.array([s.label for s in samples])
        values = np.array(probability)
        return Scored(tuple(samples), labels, values, np.log(values / (1 - values)), {})


def test_a_detector_of_fine_detail_survives_jpeg_and_dies_of_blur(sharpened: list[Sample]) -> None:
    result = robustness(_Sharpness(), sharpened, families=["jpeg", "blur"])
    assert result["undegraded"]["auroc"] == 1.0
    jpeg, blur = result["families"]["jpeg"]["points"], result["families"]["blur"]["points"]
    assert [p["strength"] for p in jpeg] == list(FAMILIES["jpeg"].strengths)
    assert jpeg[2]["difference"]["auroc"] == 0
    assert blur[-1]["difference"]["auroc"] < -0.1
    assert blur[-1]["kept_threshold"]["tpr"] < jpeg[0]["kept_threshold"]["tpr"] == 1
    assert json.loads(json.dumps(result)) == result  # plain data


def test_verdicts_follow_the_decision_rule_under_every_degradation(sharpened: list[Sample]) -> None:
    def score(samples: Sequence[Sample], quality: int | None, degradation: Degradation | None) -> Scored:
        scored = _Sharpness()(samples, quality, degradation)
        return dataclasses.replace(scored, probability=scored.probability**0.25)  # around 0.5, as thresholds are

    without = robustness(score, sharpened, families=["blur"])
    assert without["undegraded_verdicts"] is None
    assert without["families"]["blur"]["points"][0]["verdicts"] is None
    rule = Decision(real_below=0.5, ai_from=without["threshold"], rule="of this test")
    result = robustness(score, sharpened, families=["blur"], decision=rule)
    assert result["undegraded_verdicts"]["generated_called_ai"] == 1
    for point in result["families"]["blur"]["points"]:
        verdicts, kept = point["verdicts"], point["kept_threshold"]
        assert (verdicts["photos_called_ai"], verdicts["generated_called_ai"]) == (kept["fpr"], kept["tpr"])
    assert result["families"]["blur"]["points"][-1]["verdicts"]["generated_called_real"] > 0


def test_every_image_is_encoded_alike_and_once(sharpened: list[Sample]) -> None:
    detector = _Sharpness()
    robustness(detector, sharpened, families=["jpeg", "webp", "twice"], quality=85)
    assert detector.asked[0] == (85, None)
    for quality, degradation in detector.asked[1:]:
        assert degradation is not None
        assert quality == (85 if degradation.family == "webp" else None)


def test_content_is_controlled_for_with_the_scores_of_the_undegraded_pictures(sharpened: list[Sample]) -> None:
    content = {sample.path: float(index // 2) for index, sample in enumerate(sharpened)}
    result = robustness(_Sharpness(), sharpened, content, families=["crop"])
    for figures in (result["undegraded"], *(p["figures"] for p in result["families"]["crop"]["points"])):
        assert figures["ca_auroc"] == 1.0
        assert set(figures["interval"]) == set(FIGURES)
    assert robustness(_Sharpness(), sharpened, families=["crop"])["undegraded"]["ca_auroc"] is None


def test_images_a_codec_refuses_are_counted_and_leave_the_rest(sharpened: list[Sample]) -> None:
    def score(samples: Sequence[Sample], quality: int | None, degradation: Degradation | None) -> Scored:
        kept = [s for s in samples if degradation is None or s.label == 0]
        scored = _Sharpness()(kept, quality, None)
        return Scored(scored.samples, scored.labels, scored.probability, scored.margins, {"a.png": "webp 75: refused"})

    result = robustness(score, sharpened, families=["webp"])
    for point in result["families"]["webp"]["points"]:
        assert (point["figures"], point["unreadable"]) == (None, 1)
    with pytest.raises(DatasetError, match="both classes"):
        robustness(_Sharpness(), [s for s in sharpened if s.label == 1])


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), wanted=st.integers(1, 40))
def test_a_sample_has_every_source_in_proportion(sizes: list[int], wanted: int) -> None:
    samples = [
        Sample(Path(f"{label}/{source}/{i}.png"), label, f"s{source}")
        for label in (0, 1)
        for source, size in enumerate(sizes)
        for i in range(size)
    ]
    drawn = subsample(samples, wanted)
    assert drawn == subsample(samples[::-1], wanted)
    assert len(set(drawn)) == len(drawn)
    for label in (0, 1):
        counts = Counter(s.source for s in drawn if s.label == label)
        assert counts.total() == min(wanted, sum(sizes))
        for source, size in enumerate(sizes):
            assert abs(counts[f"s{source}"] - min(wanted, sum(sizes)) * size / sum(sizes)) <= 1 + len(sizes) / 2


def test_wrong_options_are_refused(examples: Path) -> None:
    with pytest.raises(ConfigurationError, match="robustness 0: expected at least one image per class"):
        robustness(_Sharpness(), _samples(examples), per_class=0)
    with pytest.raises(ConfigurationError, match="degradation 'fog'"):
        robustness(_Sharpness(), _samples(examples), families=["fog"])
    refused = CliRunner().invoke(evaluate_command, ["--model", "asrnet-lite", "--robustness", "many"])
    assert refused.exit_code == 2
    assert "'many': expected a number of images of each class, or all" in refused.output


def test_the_command_measures_the_built_in_model(folders: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    line = ["--model", "asrnet-lite-tiny", "--data", str(folders), "--robustness", "2", "--report", str(report)]
    done = CliRunner().invoke(evaluate_command, line)
    assert done.exit_code == 0, done.output
    result = json.loads((report / "robustness.json").read_text())
    assert (result["images"], result["sampled"], set(result["families"])) == (4, True, set(FAMILIES))
    at_90 = next(p for p in result["families"]["jpeg"]["points"] if p["strength"] == 90)
    assert at_90["figures"] == result["undegraded"]  # the same encoding twice over is one and the same measurement
    assert "H.264 video 40" in done.output
    assert "After degradations" in (report / "report.html").read_text()
