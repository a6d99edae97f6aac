"""A card that says other pixels than the graph sees is refused, whatever of the two was changed."""

from __future__ import annotations

import dataclasses
import json

import onnx
import pytest
from runtime_samples import CARD, build_model, picture

from asr_runtime import Detector
from asr_runtime.contract import CARD_KEY, Preprocess
from asr_runtime.errors import ModelError
from asr_runtime.inference.builtin import BUILTIN, builtin_path


def edited(model: bytes, **preprocess: object) -> bytes:
    """A model whose card says other things of the preprocessing; the graph stays as it is."""
    file = onnx.load_from_string(model)
    (prop,) = (prop for prop in file.metadata_props if prop.key == CARD_KEY)
    card = json.loads(prop.value)
    whole = card["whole"] if "mode" not in preprocess else None  # windows are for crops only
    prop.value = json.dumps({**card, "whole": whole, "preprocess": {**card["preprocess"], **preprocess}})
    return bytes(file.SerializeToString())


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"size": 96}, "mode crop, size 96, and the graph sees more"),
        ({"size": -1}, "sees more"),
        ({"size": 448}, "mode crop, size 448, and the graph sees less"),
        ({"size": 4096}, "sees less"),
        ({"mode": "squash"}, "mode squash, size .*, and the graph sees less"),
        ({"mode": "resize-crop", "resize": 256}, "size .*, resize 256, and the graph sees less"),
    ],
)
def test_an_edited_card_of_a_model_in_use_is_refused(name: str, change: dict[str, object], how: str) -> None:
    if change == {"size": -1}:
        change = {"size": Detector(name, device="cpu").card.preprocess.size - 1}
    with pytest.raises(ModelError, match=rf"^model bytes: its card contradicts its graph: .*{how}.*asr-export$"):
        Detector(edited(builtin_path(name).read_bytes(), **change), device="cpu")


@pytest.mark.parametrize("name", BUILTIN)
def test_the_models_of_the_package_pass_and_are_not_asked_again_at_every_start(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[object] = []
    infer = Detector._infer
    monkeypatch.setattr(Detector, "_infer", lambda *given, **more: runs.append(given) or infer(*given, **more))
    Detector(builtin_path(name).read_bytes(), device="cpu")
    assert runs
    runs.clear()
    Detector(name, device="cpu")
    assert runs == []


@pytest.mark.parametrize("size", [1, 2, 3, 8, 63, 64, 65, 300])
def test_every_size_that_the_graph_has_is_taken_and_another_is_not(size: int) -> None:
    card = dataclasses.replace(CARD, preprocess=Preprocess("crop", size))
    assert Detector(build_model(card, size=size), device="cpu").card == card
    for other in (size + 1, size - 4, size // 2, 2 * size + 3):
        if other > 0 and not size - 3 <= other <= size:
            with pytest.raises(ModelError, match="contradicts its graph"):
                Detector(build_model(card, size=other), device="cpu")


@pytest.mark.parametrize("preprocess", [Preprocess("crop", 64), Preprocess("resize-crop", 48, 64)])
def test_a_graph_that_sees_the_whole_frame_has_no_card_of_a_crop(preprocess: Preprocess) -> None:
    with pytest.raises(ModelError, match="sees more of a frame"):
        Detector(build_model(dataclasses.replace(CARD, preprocess=preprocess), size=4096), device="cpu")


def test_a_network_that_gives_one_number_for_everything_shows_no_contradiction() -> None:
    model = onnx.load_from_string(build_model())
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 0, "scale"))
    detector = Detector(model.SerializeToString(), device="cpu")
    assert detector(picture()).probability == pytest.approx(detector(255 - picture()).probability)


@pytest.mark.parametrize("size", [4097, 10**6, 2**70])
def test_a_size_beyond_every_network_is_refused_before_a_frame_is_made(size: int) -> None:
    with pytest.raises(ModelError, match=f"preprocess size {size}: expected 1 to 4096 pixels"):
        Detector(edited(build_model(), size=size), device="cpu")
