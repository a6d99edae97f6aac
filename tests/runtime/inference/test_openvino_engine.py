"""OpenVINO behind the same Detector: the same scores in float32, bf16 only with a passed gate, reported if missing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from runtime_samples import CARD, Runner, build_model, command_line, environment, picture

from asr_runtime import Detector, read_image
from asr_runtime.contract import CARD_KEY
from asr_runtime.errors import ConfigurationError, DeadlineError, DependencyError, ModelError
from asr_runtime.inference.builtin import builtin_path
from asr_runtime.inference.deadline import TimedSession
from asr_runtime.inference.engine_choice import BF16_GATE, open_openvino
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.inference.openvino_engine import OpenVinoSession, has_native_bf16

OUTPUTS = ["probability", "logits"]
PASSED = dataclasses.replace(CARD, metrics={BF16_GATE: {"passed": True}})


@pytest.fixture(scope="session")
def tiny() -> Detector:
    return Detector("asrnet-lite-tiny", device="cpu", threads=1)


@pytest.fixture(scope="session")
def tiny_fp32() -> OpenVinoSession:
    return OpenVinoSession(builtin_path("asrnet-lite-tiny").read_bytes(), "fp32", 1)


@pytest.fixture(scope="session")
def tiny_with_gate(tiny: Detector) -> bytes:
    """The built-in model with a card that promises bf16: a real network, for what a passed gate lets through."""
    model = onnx.load_from_string(builtin_path("asrnet-lite-tiny").read_bytes())
    card = dataclasses.replace(tiny.card, metrics={BF16_GATE: {"passed": True}})
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    return bytes(model.SerializeToString())


def test_float32_gives_the_scores_of_onnxruntime_on_real_pictures(
    tiny: Detector, tiny_fp32: OpenVinoSession, examples: Path
) -> None:
    for path in sorted((examples / "real").iterdir()):
        image = read_image(path)
        for frames in (image[None], image[None, :137, :211], image[None, 7:8, :5], np.stack([image, image[::-1]])):
            expected = tiny(frames)
            probability, logits = tiny_fp32.run(OUTPUTS, {"frames": np.ascontiguousarray(frames)})
            assert probability == pytest.approx(expected.probability, abs=1e-5)
            assert logits == pytest.approx(expected.logits, abs=1e-4)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_sizes_and_batches_in_any_order_give_the_scores_of_onnxruntime(
    brightness: tuple[Detector, OpenVinoSession], shapes: list[tuple[int, int, int]]
) -> None:
    detector, session = brightness
    for number, (count, height, width) in enumerate(shapes):
        frames = np.stack([picture(number + i, height, width) for i in range(count)])
        probability, logits = session.run(OUTPUTS, {"frames": frames})
        assert probability == pytest.approx(detector(frames).probability, abs=1e-5)
        assert logits == pytest.approx(detector(frames).logits, abs=1e-4)


@pytest.fixture(scope="session")
def brightness(detector: Detector, model_bytes: bytes) -> tuple[Detector, OpenVinoSession]:
    return detector, OpenVinoSession(model_bytes, "fp32", 1)


def test_outputs_are_not_overwritten_by_the_next_call(tiny_fp32: OpenVinoSession) -> None:
    first = tiny_fp32.run(OUTPUTS, {"frames": picture(1)[None]})
    kept = [value.copy() for value in first]
    tiny_fp32.run(OUTPUTS, {"frames": picture(2)[None]})
    assert all(np.array_equal(value, copy) for value, copy in zip(first, kept, strict=True))


@pytest.mark.bf16
def test_bf16_is_scored_where_the_card_promises_it(tiny_with_gate: bytes, tiny: Detector, examples: Path) -> None:
    detector = Detector(tiny_with_gate, precision="bf16", threads=1)
    assert detector.provider == "openvino bf16"
    assert detector.choice == ""
    images = [read_image(path) for path in sorted((examples / "real").iterdir())]
    errors = [np.abs(detector(image).logits - tiny(image).logits).max() for image in images]
    assert 1e-4 < max(errors) < 0.5
    scores = detector(np.stack([picture(1), picture(2)]))
    assert scores.probability.shape == (2,)
    assert len(scores.verdicts) == 2


@pytest.mark.parametrize(
    "card",
    [
        CARD,
        dataclasses.replace(CARD, metrics={BF16_GATE: {"passed": False}}),
        dataclasses.replace(CARD, metrics={BF16_GATE: {"passed": "yes"}}),
        dataclasses.replace(CARD, metrics={BF16_GATE: True}),
        dataclasses.replace(PASSED, precision="int8"),
    ],
    ids=["no gate", "failed", "not a truth value", "no figures", "8 bits"],
)
def test_bf16_without_a_passed_gate_is_refused_with_what_to_do(card: object) -> None:
    with pytest.raises(ModelError, match=r"no passed gate for bf16; .*asr-export X\.onnx --precision bf16"):
        Detector(build_model(card), precision="bf16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp64"}, "expected one of file, bf16, auto"),
        ({"precision": "bf16", "device": "cuda"}, "precision bf16 is for the CPU"),
    ],
)
def test_combinations_that_cannot_work_are_refused(model_bytes: bytes, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Detector(model_bytes, **options)  # type: ignore[arg-type]


def test_an_engine_that_computes_something_else_is_refused() -> None:
    other = open_session(build_model(), "cpu", 1)
    changed = build_model().replace(np.float32(8 / 255).tobytes(), np.float32(9 / 255).tobytes())
    with pytest.raises(ModelError, match=r"OpenVINO in fp32 gives the logits .* where onnxruntime gives"):
        open_openvino(changed, CARD, other, "fp32", 1)


def test_a_graph_that_openvino_cannot_load_is_a_model_error() -> None:
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load it"):
        OpenVinoSession(b"nothing", "fp32", 1)


def test_a_run_that_is_stopped_leaves_nothing_behind() -> None:
    """A compiled model whose run was cancelled gives the shapes of that run to the next ones: it must not be kept."""
    session = OpenVinoSession(builtin_path("asrnet-lite-tiny").read_bytes(), "fp32", 1)
    frame = picture(3, 200, 200)[None]
    expected = session.run(OUTPUTS, {"frames": frame})
    timed = TimedSession(session)
    with pytest.raises(DeadlineError):
        timed.call(lambda run: run(OUTPUTS, {"frames": np.repeat(frame, 80, axis=0)}), 0.05)
    for _ in range(2):
        assert all(map(np.array_equal, timed.call(lambda run: run(OUTPUTS, {"frames": frame}), 30), expected))


def test_sessions_that_end_leave_the_stack_of_signal_handlers_in_place() -> None:
    code = """if True:
        import ctypes, gc, signal
        from runtime_samples import build_model
        from asr_runtime.inference.openvino_engine import OpenVinoSession, has_native_bf16

        class Stack(ctypes.Structure):
            _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

        def stack():
            old = Stack()
            assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(old)) == 0
            return old.start, old.flags, old.size

        has_native_bf16()
        model = build_model()
        sessions = [OpenVinoSession(model, "fp32", 1) for _ in range(3)]
        before = stack()
        while sessions:
            del sessions[0]
            gc.collect()
            assert stack() == before
        signal.signal(signal.SIGINT, lambda *_: print("handled"))
        signal.raise_signal(signal.SIGINT)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"handled\n", b"")


def test_without_openvino_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match=r"pip install 'asrnet-edge\[openvino\]'"):
        Detector(build_model(PASSED), precision="bf16")
    with pytest.raises(DependencyError, match=r"pip install 'asrnet-edge\[openvino\]'"):
        has_native_bf16()


def test_the_command_names_the_extra_and_needs_no_openvino_otherwise(tmp_path: Path) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(build_model(PASSED))
    (tmp_path / "a.png").write_bytes(onnx.__file__.encode())
    block = "import sys; sys.modules['openvino'] = None; "
    for precision, code in (("bf16", 2), ("file", 1)):  # 1: the picture is none
        arguments = command_line("screen", tmp_path / "a.png", "--model", model, "--precision", precision)
        started = [sys.executable, "-c", block + arguments[2], *arguments[3:]]
        done = subprocess.run(started, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("pip install 'asrnet-edge[openvino]'" in done.stderr) == (precision == "bf16")
        assert precision == "file" or done.stderr.count("\n") == 1


def test_a_processor_without_bf16_is_reported(tmp_path: Path) -> None:
    """OpenVINO silently computes in float32 there; here because it is asked to, whatever this processor can."""
    model = tmp_path / "x.onnx"
    model.write_bytes(build_model(PASSED))
    older = (
        "import openvino; compiled = openvino.Core.compile_model; openvino.Core.compile_model = lambda core, graph, "
        "device, settings: compiled(core, graph, device, {**settings, 'INFERENCE_PRECISION_HINT': 'f32'}); "
    )
    arguments = command_line("screen", "a.png", "--model", model, "--precision", "bf16")
    started = [sys.executable, "-c", older + arguments[2], *arguments[3:]]
    done = subprocess.run(started, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "computes in f32 on this processor, not in bf16; use --precision file" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.bf16
def test_the_command_scores_in_bf16_and_says_so(run_command: Runner, tmp_path: Path, examples: Path) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(build_model(PASSED))
    photo = sorted((examples / "real").iterdir())[0]
    done = run_command("screen", photo, "--model", model, "--precision", "bf16", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert b'"provider": "openvino bf16"' in done.stdout
    assert done.stderr == b""
    refused = run_command("screen", photo, "--precision", "bf16", "--device", "tensorrt")
    assert refused.returncode == 2
