"""Every inference ends in time, in an answer or an error, and the next one works."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from runtime_samples import build_model, environment, shade

from asr_runtime import Detector
from asr_runtime.errors import ConfigurationError, DeadlineError, InferenceError
from asr_runtime.inference import deadline
from asr_runtime.inference.deadline import Run, TimedSession
from asr_runtime.inference.onnxruntime_engine import open_session

BLACK, WHITE = shade(0, 8, 8), np.full((8, 8, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def endless_model() -> bytes:
    return build_model(endless=True)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "asr-inference"}


def product_of_matrices() -> bytes:
    """One operator: nothing between its beginning and its end looks at the clock."""
    square = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "N"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "square", square[:1], square[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_an_endless_inference_is_an_error_in_time_and_the_next_frame_is_scored(endless_model: bytes) -> None:
    detector = Detector(endless_model, device="cpu", threads=1, deadline=0.2)
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"did not answer within 0\.2 s"):
        detector(WHITE)
    assert 0.2 <= time.monotonic() - began < 1.2
    assert detector(BLACK).verdicts == ("real",)


def test_the_error_is_an_inference_error_that_ends_a_command_with_1() -> None:
    assert issubclass(DeadlineError, InferenceError)
    assert DeadlineError.exit_code == 1


def test_the_scores_are_those_without_a_deadline(model_bytes: bytes, detector: Detector) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    timed = Detector(model_bytes, device="cpu", threads=1, deadline=5)
    assert np.array_equal(timed(image).logits, detector(image).logits)


def test_the_time_begins_again_with_each_inference_of_one_turn() -> None:
    session = TimedSession(open_session(product_of_matrices(), "cpu", 1))
    feeds = {"x": np.ones((2, 2), np.float32)}

    def slowly(run: Run) -> int:
        for _ in range(4):
            run(["y"], feeds)
            time.sleep(0.3)
        return threading.get_ident()

    began = time.monotonic()
    assert session.call(slowly, 0.9) != threading.get_ident()
    assert time.monotonic() - began > 1.1

    answers = []

    def too_slowly(run: Run) -> None:
        for pause in (1.2, 0):
            answers.append(run(["y"], feeds))
            time.sleep(pause)

    with pytest.raises(DeadlineError, match=r"within 0\.9 s"):
        session.call(too_slowly, 0.9)
    assert len(answers) == 1
    assert session.call(slowly, 0.9)


def test_a_whole_look_is_one_turn_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    call = TimedSession.call

    def counted(self: TimedSession, work: Callable[[Run], object], seconds: float) -> object:
        turns.append(seconds)
        return call(self, work, seconds)

    monkeypatch.setattr(TimedSession, "call", counted)
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    timed = Detector("asrnet-lite-tiny", device="cpu", threads=1, deadline=9)
    look = timed.look(image)
    assert len(look.windows) == 5
    assert turns == [9]
    assert look == Detector("asrnet-lite-tiny", device="cpu", threads=1).look(image)


def test_threads_do_not_pile_up(endless_model: bytes) -> None:
    before = workers()
    detector = Detector(endless_model, device="cpu", threads=1, deadline=0.1)
    for _ in range(20):
        with pytest.raises(DeadlineError):
            detector(WHITE)
    assert len(workers() - before) == 1
    assert detector(BLACK).verdicts == ("real",)


def test_the_thread_ends_with_the_detector(model_bytes: bytes) -> None:
    before = workers()
    detector = Detector(model_bytes, device="cpu", threads=1, deadline=5)
    (worker,) = workers() - before
    assert worker.daemon
    del detector
    gc.collect()
    worker.join(2)
    assert not worker.is_alive()


def test_without_a_deadline_there_is_no_thread(model_bytes: bytes) -> None:
    before = workers()
    Detector(model_bytes, device="cpu", threads=1)(BLACK)
    assert workers() <= before


def test_ctrl_c_ends_the_wait(endless_model: bytes) -> None:
    detector = Detector(endless_model, device="cpu", threads=1, deadline=30)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        detector(WHITE)
    assert time.monotonic() - began < 5
    timer.join()
    assert detector(BLACK).verdicts == ("real",)


def test_as_many_calls_as_jobs_run_side_by_side(endless_model: bytes) -> None:
    before = workers()
    detector = Detector(endless_model, device="cpu", threads=1, deadline=1.0, jobs=2)
    errors: list[DeadlineError] = []

    def score() -> None:
        try:
            detector(WHITE)
        except DeadlineError as error:
            errors.append(error)

    callers = [threading.Thread(target=score) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(errors) == 5
    assert len(workers() - before) == 2
    assert detector(BLACK).verdicts == ("real",)


def test_several_threads_take_turns(endless_model: bytes) -> None:
    detector = Detector(endless_model, device="cpu", threads=1, deadline=0.3)
    ended: list[str] = []

    def score(frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        try:
            ended.append(detector(frame).verdicts[0])
        except DeadlineError:
            ended.append("late")

    threads = [threading.Thread(target=score, args=(frame,)) for frame in (WHITE, BLACK, WHITE, BLACK)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["late", "late", "real", "real"]


def test_an_engine_that_does_not_stop_is_never_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_GRACE", 0.01)
    session = TimedSession(open_session(product_of_matrices(), "cpu", 1))

    def square(side: int, seconds: float) -> list[list[float]]:
        feeds = {"x": np.ones((side, side), np.float32)}
        return session.call(lambda run: run(["y"], feeds)[0].tolist(), seconds)

    assert square(2, 5.0) == [[2, 2], [2, 2]]
    with pytest.raises(DeadlineError, match="within"):
        square(4000, 0.2)
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="never stopped"):
        square(2, 5.0)
    assert time.monotonic() - began < 0.5


def test_the_process_ends_while_the_engine_does_not(tmp_path: Path) -> None:
    (tmp_path / "square.onnx").write_bytes(product_of_matrices())
    code = """
import numpy as np
from pathlib import Path
from asr_runtime import errors
from asr_runtime.inference import deadline
from asr_runtime.inference import onnxruntime_engine as engine
deadline._GRACE = 0.01
session = deadline.TimedSession(engine.open_session(Path("square.onnx").read_bytes(), "cpu", 1))
try:
    session.call(lambda run: run(["y"], {"x": np.ones((8000, 8000), np.float32)}), 0.2)
except errors.DeadlineError:
    print("late", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "late\n"
        began = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - began < 3


def test_an_error_of_the_engine_stays_what_it_is() -> None:
    detector = Detector(build_model(logarithm=True), device="cpu", threads=1, deadline=5)
    with pytest.raises(InferenceError, match="NaN or infinity"):
        detector(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_deadline_that_cannot_be_met_is_refused(model_bytes: bytes, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="deadline"):
        Detector(model_bytes, device="cpu", deadline=seconds)
