"""The page: complete, self-contained, harmless whatever files are called, and right about what it shows."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from asr_runtime.contract import Decision, OperatingPoint
from asr_runtime.media.image import read_image
from asr_train.data.layouts import Sample
from asr_train.evaluation.evaluate import Evaluation, evaluate
from asr_train.evaluation.html_report import finding, html_report
from asr_train.evaluation.report import report_text, write_report
from asr_train.evaluation.report_pictures import residual, spectrum, thumbnail, traces
from asr_train.evaluation.robustness import robustness
from asr_train.figures.content import ContentProbe
from asr_train.figures.plots import Row, plot_bars, plot_roc, share_interval
from asr_train.figures.scoring import Scored

_VOID = {"meta", "link", "img", "br", "hr", "input"}
_HOSTILE = "<script>alert('x')</script>&\"'.jpg"
_PROTOCOL = {
    "model": "some.onnx",
    "data": "some data",
    "split": "val",
    "re-encoding": "every image at JPEG 90",
    "equalise": 90,
    "left out": ["one"],
    "content held fixed": "yes, by a probe",
    "notes": [],
}


class _Page(HTMLParser):
    """Tags, addresses and visible text of a page; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def scored(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """The examples with made-up probabilities; the photo most surely called generated has a hostile name."""
    samples = []
    for label, name in enumerate(("real", "ai")):
        files = sorted((examples / name).iterdir())
        samples += [Sample(p, label, p.name.split("-")[0] if label else "photos") for p in files[:6]]
    renamed = tmp_path_factory.mktemp("hostile") / _HOSTILE.replace("/", "\N{FRACTION SLASH}")
    shutil.copy(samples[5].path, renamed)
    samples[5] = Sample(renamed, 0, "<b>photos</b>")
    probability = np.concatenate([np.linspace(0.1, 0.9, 6), np.linspace(0.3, 0.95, 6)])
    labels = np.array([s.label for s in samples])
    content = np.tile(np.arange(6.0), 2)
    return Scored(tuple(samples), labels, probability, probability, {"gone.jpg": "no such file"}, content)


@pytest.fixture(scope="module")
def evaluation(scored: Scored) -> Evaluation:
    probe = ContentProbe(None, 100, "train split of some data")  # its scores are in `scored`
    decision = Decision(0.3, 0.7, "a test")
    return evaluate(scored, _PROTOCOL, decision, (OperatingPoint(0.05, 0.7, 0.5),), scored, probe)


@pytest.fixture(scope="module")
def complete(evaluation: Evaluation) -> Evaluation:
    """With robustness and content-matched pairs."""
    scored = evaluation.scored
    curves = robustness(lambda samples, quality, degradation: scored, scored.samples, families=["noise", "h264"])
    interval = {"auroc": [0.8, 0.9], "ranked_right": [0.3, 0.7]}
    pairs = {"resynthesised_x": {"pairs": 7, "auroc": 0.875, "ranked_right": 0.5, "interval": interval}}
    return dataclasses.replace(evaluation, robustness=curves, pairs=pairs)


def test_the_page_holds_what_a_reader_needs(complete: Evaluation) -> None:
    page = _Page(html_report(complete))
    for words in (
        "some.onnx on some data",
        "6 photographs and 6 generated pictures of",
        "Content-adjusted AUROC (ca-AUROC) is the share of pairs",
        f"{complete.overall['ca_auroc']:.3f}",
        f"{complete.overall['auroc']:.3f}",
        "subject matter alone",
        "Generators, worst first",
        "Photographs wrongly called generated, by source",
        "After degradations",
        "H.264 video 40",
        "resynthesised_x",
        "Photographs most surely called generated",
        "Generated pictures most surely called photographs",
        "What is left when the subject is taken away",
        "1 unreadable, left out: gone.jpg",
        "Limits",
    ):
        assert words in re.sub(r"\s+", " ", page.text), words
    # headline, ROC, histogram, reliability, generators, photos, and a curve per family
    assert page.tags.count("svg") == 6 + 2


def test_the_page_loads_and_runs_nothing(complete: Evaluation) -> None:
    text = html_report(complete)
    page = _Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert [a for a in page.addresses if not a.startswith(("#", "data:image/"))] == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert len(text) < 3_000_000


def test_names_of_files_and_sources_are_shown_as_text(evaluation: Evaluation) -> None:
    text = html_report(evaluation)
    page = _Page(text)
    assert "<script" not in text
    assert "alert('x')" in page.text  # it is the photo most surely called generated, so its name stands there
    assert page.text.count("<b>photos</b>") >= 2


def test_pictures_are_pictures_and_the_worst_come_first(evaluation: Evaluation) -> None:
    text = html_report(evaluation)
    for uri in re.findall(r'src="data:image/\w+;base64,([^"]+)"', text):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert max(image.shape) <= 176
    worst = text[text.index("Photographs most surely called generated") :]
    probabilities = [float(p) for p in re.findall(r"P\(generated\) <strong>([\d.]+)", worst)]
    assert probabilities == [
        0.9,
        0.74,
        0.58,
        0.3,
        0.43,
    ]  # photos downwards from 0.9, then generated ones upwards from 0.3


def test_a_file_that_is_gone_leaves_a_page(evaluation: Evaluation) -> None:
    samples = tuple(dataclasses.replace(s, path=s.path.with_name("gone.png")) for s in evaluation.scored.samples)
    gone = dataclasses.replace(evaluation, scored=dataclasses.replace(evaluation.scored, samples=samples))
    page = _Page(html_report(gone))
    assert page.text.count("cannot be read") == 5
    assert "img" not in page.tags


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_and_no_extras_still_make_a_page(label: int, scored: Scored) -> None:
    chosen = np.flatnonzero(scored.labels == label)
    samples = tuple(scored.samples[i] for i in chosen)
    alone = Scored(samples, scored.labels[chosen], scored.probability[chosen], scored.margins[chosen], {})
    evaluation = evaluate(alone, {**_PROTOCOL, "content held fixed": "no: a test"})
    page = _Page(html_report(evaluation))
    assert "Both classes are needed" in page.text
    assert "Subject matter was not held fixed" in page.text
    assert "unsure" not in page.text.lower()
    assert report_text(evaluation)


def test_the_folder_holds_the_same_figures_for_programs(complete: Evaluation, tmp_path: Path) -> None:
    written = write_report(complete, tmp_path / "report")
    names = ["metrics.json", "report.html", "report.txt", "result.csv", "robustness.json"]
    assert [p.name for p in written] == names
    figures = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert set(figures) == {
        "protocol",
        "overall",
        "by_source",
        "decisions",
        "verdicts",
        "content_probe",
        "raw",
        "pairs",
    }
    assert figures["overall"]["ca_auroc"] == complete.overall["ca_auroc"]
    text = (tmp_path / "report" / "report.txt").read_text()
    assert f"  ca-AUROC    {complete.overall['ca_auroc']:.4f}  " in text
    assert "threshold for 5.0% of photos:" in text
    assert "  H.264 video 40 " in text


def test_a_finding_no_better_than_content_is_called_that(evaluation: Evaluation) -> None:
    def verdict(ca_auroc: float, low: float, left: float) -> str:
        interval = {**evaluation.overall["interval"], "ca_auroc": [low, ca_auroc + 0.05]}
        overall = {**evaluation.overall, "ca_auroc": ca_auroc, "interval": interval}
        probe = {**(evaluation.content_probe or {}), "ca_auroc": left}
        return finding(dataclasses.replace(evaluation, overall=overall, content_probe=probe), "ca_auroc").verdict

    assert "Subject matter alone still gets 63.6% there" in verdict(0.60, 0.54, 0.636)
    assert "That is better than guessing." in verdict(0.75, 0.70, 0.60)
    assert "That cannot be distinguished from guessing." in verdict(0.53, 0.48, 0.51)
    assert "That is worse than guessing" in verdict(0.40, 0.35, 0.51)


def test_plots_take_ink_and_font_from_the_page() -> None:
    labels, probability = np.array([0, 1] * 3000), np.random.default_rng(0).random(6000)
    svg = plot_roc(labels, probability)
    assert svg.startswith("<svg ")
    assert "currentColor" in svg
    assert "<text" in svg
    assert len(svg) < 80_000  # thinned
    assert svg == plot_roc(labels, probability)
    wide = plot_bars("bars", [Row("a < b", 0.2, (0.1, 0.4)), Row("c", 0.9)], "AUROC")
    assert "a &lt; b" in wide
    assert "0.200  (0.10 to 0.40)" in wide


def test_an_interval_of_a_share_is_wilsons() -> None:
    assert share_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert share_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_residual_and_spectrum_show_a_period() -> None:
    stripes = np.full((128, 128, 3), 100, np.uint8)
    stripes[:, ::4] = 140
    left_over = residual(stripes)
    assert left_over.max() == 40
    assert (left_over[:, 1::4] == 0).all()
    shown = spectrum(left_over)
    assert shown[64, 64 + 32] == 255  # one peak per 4 px: a quarter of the sampling rate
    assert np.median(shown) < 60


def test_traces_show_what_was_scored(examples: Path) -> None:
    sample = Sample(examples / "ai" / "sd3-1.jpg", 1, "sd3")
    raw, scored = traces(sample, None), traces(sample, 50)
    assert raw is not None
    assert scored is not None
    image = read_image(sample.path)
    top, left = (image.shape[0] - 128) // 2, (image.shape[1] - 128) // 2
    data = base64.b64decode(raw.crop.partition(",")[2])
    crop = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(crop, image[top : top + 128, left : left + 128])
    assert scored.crop != raw.crop
    assert thumbnail(Sample(examples / "none.png", 0, "x")) is None
