"""Several windows of a picture -> one verdict: the formula of the card, the same graph, clear refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_samples import CARD, EXAMPLES, WHOLE_CARD, WHOLE_VIDEO_CARD, bright_corner, build_model, picture, shade

from asr_runtime import Detector, read_image
from asr_runtime.contract import ModelCard, Preprocess
from asr_runtime.errors import ConfigurationError, DeadlineError, InferenceError
from asr_runtime.inference.looking import choose_looks, chosen_look
from asr_runtime.windows import Window

COFFEE = EXAMPLES / "real" / "coffee.png"


@pytest.fixture(scope="module")
def whole() -> Detector:
    return Detector(build_model(WHOLE_CARD), device="cpu", threads=1)


@pytest.fixture(scope="module")
def tiny() -> Detector:
    return Detector("asrnet-lite-tiny", device="cpu", threads=1)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_the_largest_margins_are_averaged_and_calibrated_by_the_card(whole: Detector) -> None:
    image = bright_corner()
    look = whole.look(image)
    # Windows of 64 pixels: the centre is a quarter bright, the last corner all of it, the other corners not at all.
    corners = [(98, 68), (0, 0), (196, 0), (0, 136), (196, 136)]
    margins = [8 * (float(image[y : y + 64, x : x + 64].mean()) / 255 - 0.5) for x, y in corners]
    assert look.kind == "whole"
    assert look.probability == pytest.approx(sigmoid((margins[0] + margins[4]) / 2 / 2.0 - 0.25), abs=1e-6)
    assert look.verdict == "unsure"
    assert [(w.x, w.y, w.size) for w in look.windows] == [(*corner, 64) for corner in corners]
    assert [w.probability for w in look.windows] == pytest.approx([sigmoid(m / 2.0 + 0.25) for m in margins], abs=1e-6)


_QUICK = dataclasses.replace(
    WHOLE_CARD,
    whole=dataclasses.replace(WHOLE_CARD.whole, top=5, stops=((-3.0, 3.0), (-2.0, 2.0))),  # type: ignore[type-var]
)


def test_a_quick_look_stops_at_the_first_windows_that_decide() -> None:
    detector = Detector(build_model(_QUICK), device="cpu", threads=1)
    quick, whole = (detector.look(noisy(250), choice) for choice in ("quick", "whole"))
    assert (quick.kind, quick.verdict, whole.verdict) == ("quick", "ai", "ai")
    assert quick.windows == whole.windows[:1]
    centre = np.ascontiguousarray(noisy(250)[68:132, 98:162])
    assert quick.margin == pytest.approx(detector(centre).logits[0] @ [-1, 1], abs=1e-5)
    middling = detector.look(noisy(200), "quick")  # a margin of 2.3: two windows, whose mean is beyond 2
    assert len(middling.windows) == 2
    assert middling.probability == pytest.approx(sigmoid(middling.margin / 2.0 - 0.25))
    undecided = detector.look(noisy(128), "quick")
    assert len(undecided.windows) == 5
    assert undecided.probability == detector.look(noisy(128), "whole").probability


def test_a_quick_look_of_a_card_without_stops_is_refused(whole: Detector) -> None:
    with pytest.raises(ConfigurationError, match="does not say when a look may stop; use look whole or centre, or add"):
        whole.look(bright_corner(), "quick")


def noisy(level: int) -> NDArray[np.uint8]:
    """A picture of one brightness with enough detail to be judged."""
    noise = np.random.default_rng(0).integers(-5, 6, (200, 260, 3))
    return (level + noise).clip(0, 255).astype(np.uint8)


def test_the_centre_is_what_a_call_gives(whole: Detector) -> None:
    image = picture(3, 150, 170)
    look, scores = whole.look(image, "centre"), whole(image)
    assert (look.kind, look.probability, look.verdict) == ("centre", float(scores.probability[0]), scores.verdicts[0])
    assert look.windows == (Window(53, 43, 64, look.probability),)


def test_a_picture_with_room_for_one_window_is_judged_as_its_centre(whole: Detector) -> None:
    image = picture(4, 64, 20)
    look, scores = whole.look(image, "whole"), whole(image)
    assert (look.kind, look.probability, look.verdict) == ("centre", float(scores.probability[0]), scores.verdicts[0])
    assert look.windows == (Window(0, 0, 64, look.probability),)


@pytest.mark.parametrize("shape", [(400, 600), (301, 161), (100, 500), (90, 70)])
def test_a_window_scores_what_the_graph_gives_for_its_pixels(tiny: Detector, shape: tuple[int, int]) -> None:
    """Of a real model, which crops the centre: the centre window is the picture, bit by bit."""
    image = np.ascontiguousarray(read_image(COFFEE)[: shape[0], : shape[1]])
    (only,) = tiny.look(image, "centre").windows
    view = image[only.y : only.y + only.size, only.x : only.x + only.size]
    assert tiny(view).probability[0] == tiny(image).probability[0] == only.probability


def test_the_map_covers_the_picture(whole: Detector) -> None:
    windows = whole.map(bright_corner())
    assert len({(w.x, w.y) for w in windows}) == len(windows) == 6 * 8
    inside = [w.x >= 130 and w.y >= 100 for w in windows]
    bright = min(w.probability for w, is_inside in zip(windows, inside, strict=True) if is_inside)
    assert inside == [w.probability >= bright for w in windows]
    assert len(whole.map(bright_corner(), 10)) <= 10
    assert whole.map(picture(1, 30, 30)) == (Window(0, 0, 64, float(whole(picture(1, 30, 30)).probability[0])),)


def test_models_without_figures_for_the_whole_picture_refuse(detector: Detector) -> None:
    assert detector.look(picture()).kind == "centre"
    with pytest.raises(ConfigurationError, match="no calibration for the whole picture; use look centre"):
        detector.look(picture(), "whole")
    assert detector.map(picture(0, 80, 80)), "a map needs no calibration of its own"


def test_models_that_resize_have_no_windows() -> None:
    card = dataclasses.replace(CARD, preprocess=Preprocess("squash", 64))
    squash = Detector(build_model(card, size=4096), device="cpu")
    for ask in (lambda: squash.look(picture(), "whole"), lambda: squash.map(picture())):
        with pytest.raises(ConfigurationError, match=r"resizes every picture \(preprocess mode squash\)"):
            ask()


@pytest.mark.parametrize(
    ("image", "error"),
    [(np.zeros((1, 80, 80, 3), np.uint8), ValueError), (np.zeros((80, 80), np.uint8), ValueError), (None, TypeError)],
)
def test_what_is_no_picture_is_refused(whole: Detector, image: NDArray[np.uint8], error: type[Exception]) -> None:
    for ask in (whole.look, whole.map):
        with pytest.raises(error):
            ask(image)


def test_an_unknown_look_and_a_map_of_no_windows_are_refused(whole: Detector) -> None:
    with pytest.raises(ConfigurationError, match="look 'half': expected one of auto, centre, whole"):
        whole.look(picture(), "half")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least 1"):
        whole.map(picture(), 0)


def test_a_window_without_a_usable_score_fails_the_look() -> None:
    detector = Detector(build_model(WHOLE_CARD, logarithm=True), device="cpu")
    with pytest.raises(InferenceError, match="NaN or infinity"):
        detector.look(np.zeros((200, 260, 3), np.uint8))


def test_windows_that_hold_nothing_have_no_weight(whole: Detector) -> None:
    image = shade(60, 200, 260)
    image[136:, 196:] = 255  # a white corner, for which this model says ai
    look = whole.look(image)
    assert look.windows[-1].probability > 0.8
    margin = 8 * (float(image[:64, 196:].mean()) / 255 - 0.5)
    assert (look.verdict, look.reason) == ("real", None)
    assert look.probability == pytest.approx(sigmoid(margin / 2.0 - 0.25), abs=0.01)
    blank = whole.look(np.full_like(image, 255))
    assert (blank.kind, blank.verdict, blank.reason) == ("whole", "unsure", "one colour")


def test_each_window_has_the_deadline() -> None:
    detector = Detector(build_model(WHOLE_CARD, endless=True), device="cpu", deadline=0.5)
    with pytest.raises(DeadlineError):
        detector.look(bright_corner())
    assert detector.look(bright_corner(level=200)).kind == "whole"


def test_the_program_in_the_documentation_gives_the_same_probability(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "whole-picture.md").read_text()
    program: dict[str, Any] = {}
    exec(page.rpartition("```python\n")[2].partition("```")[0], program)
    path = tmp_path / "whole.onnx"
    path.write_bytes(build_model(WHOLE_CARD))
    image = picture(7, 150, 333)
    look = Detector(path, device="cpu").look(image)
    assert program["whole_probability"](str(path), image) == pytest.approx(look.probability, abs=1e-9)


NOT_DEFAULT = dataclasses.replace(WHOLE_CARD, whole=dataclasses.replace(WHOLE_VIDEO_CARD.whole, is_default=False))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("card", "images", "videos"),
    [
        (CARD, "centre", "centre"),
        (WHOLE_CARD, "whole", "centre"),
        (WHOLE_VIDEO_CARD, "whole", "whole"),
        (NOT_DEFAULT, "centre", "centre"),
    ],
    ids=["no figures", "pictures only", "videos too", "not better"],
)
def test_the_card_decides_which_look_is_the_default(card: ModelCard, images: str, videos: str) -> None:
    assert (chosen_look(card, "auto"), chosen_look(card, "auto", video=True)) == (images, videos)
    assert chosen_look(card, "centre") == "centre"


def test_cameras_are_looked_at_as_a_whole_within_half_the_time_between_frames() -> None:
    detector = Detector(build_model(WHOLE_VIDEO_CARD, work=2), device="cpu", threads=1)

    def of_cameras(fps: float | None, cameras: int = 1) -> str:
        return choose_looks(detector, detector.card, "auto", fps, cameras)["cameras"]

    assert of_cameras(0.01) == "whole"
    assert of_cameras(0.01, cameras=100_000) == "centre"
    assert of_cameras(10_000) == of_cameras(None) == "centre"
    assert choose_looks(detector, detector.card, "whole", None, 1)["cameras"] == "whole"
