"""`precision="auto"`: timed once on a machine, cached, reported; never against the card or for a gain within noise."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_samples import CARD, Runner, build_model, picture

from asr_runtime import Detector
from asr_runtime.errors import DeviceError, ModelError
from asr_runtime.inference import engine_choice, engine_times
from asr_runtime.inference.engine_choice import BF16_GATE, choose_engine
from asr_runtime.inference.engine_times import Times, fingerprint, keep_times, kept_times, times_path
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.inference.openvino_engine import OpenVinoSession

PASSED = dataclasses.replace(CARD, metrics={BF16_GATE: {"passed": True}})
MODEL = build_model(PASSED)
KEY = fingerprint(MODEL, 1)
ALL = ["onnxruntime", "openvino fp32", "openvino bf16"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a shorter timing than that of a user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_choice, "_SECONDS", 0.05)
    return tmp_path / "cache"


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was timed, each time that anything was."""
    seen: list[list[str]] = []
    real = engine_choice._timed

    def timed(sessions: Any, frame: Any) -> dict[str, float]:
        seen.append(list(sessions))
        return real(sessions, frame)

    monkeypatch.setattr(engine_choice, "_timed", timed)
    return seen


def given_times(monkeypatch: pytest.MonkeyPatch, *milliseconds: float) -> None:
    monkeypatch.setattr(engine_choice, "_timed", lambda sessions, _: dict(zip(sessions, milliseconds, strict=True)))


def kept_files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.json"))


@pytest.mark.bf16
def test_engines_are_timed_once_and_the_choice_is_cached_and_reported(cache: Path, timings: list[list[str]]) -> None:
    first = Detector(MODEL, device="cpu", precision="auto", threads=1)
    assert timings == [ALL]
    (kept,) = kept_files(cache)
    assert kept.parent == cache / "asrnet-edge" / "engines"
    assert f"kept in {kept}" in first.choice
    assert all(name in first.choice for name in ("onnxruntime fp32: ", "openvino fp32: ", "openvino bf16: "))
    second = Detector(MODEL, device="cpu", precision="auto", threads=1)
    assert timings == [ALL]
    assert "timed earlier" in second.choice
    assert second.provider == first.provider
    assert "\n" not in first.choice + second.choice
    assert first(picture()).probability == pytest.approx(second(picture()).probability)


@pytest.mark.bf16
@pytest.mark.parametrize(
    ("milliseconds", "engine", "message"),
    [
        ((10, 12, 13), "onnxruntime", "computed by onnxruntime fp32: 10.0 ms; openvino fp32: 12.0 ms; "),
        ((10, 9.6, 9.7), "onnxruntime", "; openvino bf16: 9.7 ms; a gain below 5% is within noise; "),
        ((10, 9, 9.1), "openvino fp32", "computed by openvino fp32: 9.0 ms; onnxruntime fp32: 10.0 ms; "),
        ((10, 9, 8.7), "openvino fp32", "; a gain below 5% is within noise; "),
        ((10, 9.7, 9.4), "openvino bf16", "computed by openvino bf16: 9.4 ms; "),
        ((10, 9, 4), "openvino bf16", "computed by openvino bf16: 4.0 ms; onnxruntime fp32: 10.0 ms; openvino fp32: 9"),
    ],
)
def test_a_less_trusted_engine_is_taken_only_for_a_gain_beyond_noise(
    milliseconds: tuple[float, ...], engine: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_times(monkeypatch, *milliseconds)
    for how in ("; kept in", "; timed earlier, kept in"):
        detector = Detector(MODEL, device="cpu", precision="auto", threads=1)
        assert detector.provider == ("CPUExecutionProvider" if engine == "onnxruntime" else engine)
        assert message in detector.choice
        assert how in detector.choice
        assert ("within noise" in message) == ("within noise" in detector.choice)
        assert detector(picture()).probability == pytest.approx(Detector(MODEL)(picture()).probability, abs=1e-3)


def test_engines_are_timed_in_turns_on_the_networks_own_size() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    class Sleeper:
        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def run(self, _: list[str], feeds: dict[str, Any]) -> None:
            calls.append((self.name, feeds["frames"].shape))
            time.sleep(self.seconds)

    frame = engine_choice._frame(CARD)
    times = engine_choice._timed({"slow": Sleeper("slow", 0.02), "fast": Sleeper("fast", 0.002)}, frame)
    assert times["slow"] >= 20
    assert 2 <= times["fast"] < 0.5 * times["slow"]
    assert calls == [("slow", (1, 64, 64, 3)), ("fast", (1, 64, 64, 3))] * (len(calls) // 2)
    assert len(calls) >= 14


def test_bf16_without_a_passed_gate_is_not_even_timed(timings: list[list[str]], cache: Path) -> None:
    detector = Detector(build_model(), device="cpu", precision="auto", threads=1)
    assert timings == [ALL[:2]]
    assert "openvino bf16 left out: the card has no passed gate" in detector.choice


def test_a_cached_choice_cannot_bring_in_what_the_card_does_not_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model()
    keep_times(fingerprint(model, 1), Times({"onnxruntime": 9.0, "openvino fp32": 8.9, "openvino bf16": 1.0}))
    assert Detector(model, device="cpu", precision="auto", threads=1).provider == "CPUExecutionProvider"


def test_files_of_lower_precision_stay_in_the_engine_that_judged_them(timings: list[list[str]], cache: Path) -> None:
    detector = Detector(build_model(dataclasses.replace(PASSED, precision="int8")), device="cpu", precision="auto")
    assert detector.provider == "CPUExecutionProvider"
    assert detector.choice.startswith("computed by onnxruntime int8; openvino left out: int8 was judged in onnxruntime")
    assert timings == kept_files(cache) == []


def test_without_openvino_there_is_nothing_to_time(timings: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "package_version", lambda package: None)
    detector = Detector(MODEL, device="cpu", precision="auto")
    assert "openvino left out: not installed, pip install 'asrnet-edge[openvino]'" in detector.choice
    assert timings == []


def test_a_broken_openvino_is_reported_and_not_cached(
    timings: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    detector = Detector(MODEL, device="cpu", precision="auto", threads=1)
    assert detector.provider == "CPUExecutionProvider"
    assert "openvino fp32 left out: OpenVINO cannot be imported" in detector.choice
    assert timings == [["onnxruntime"]]
    assert kept_files(cache) == []


def test_what_the_processor_cannot_do_is_cached_as_well(
    timings: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_choice.OpenVinoSession

    def without_bf16(model: bytes, precision: Any, threads: int | None) -> OpenVinoSession:
        if precision == "bf16":
            raise DeviceError("no bf16 here")
        return real(model, precision, threads)

    monkeypatch.setattr(engine_choice, "OpenVinoSession", without_bf16)
    for how in ("; kept in", "; timed earlier, kept in"):
        detector = Detector(MODEL, device="cpu", precision="auto", threads=1)
        assert "openvino bf16 left out: no bf16 here" in detector.choice
        assert how in detector.choice
    assert timings == [ALL[:2]]


def test_an_engine_that_disagrees_is_left_out_whatever_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model().replace(np.float32(8 / 255).tobytes(), np.float32(9 / 255).tobytes())
    choice = choose_engine(model, CARD, open_session(build_model(), "cpu", 1), 1)
    assert choice.engine == "onnxruntime"
    assert "openvino fp32 left out: OpenVINO in fp32 gives the logits" in choice.summary


@pytest.mark.bf16
def test_a_cached_engine_that_does_not_start_any_more_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given_times(monkeypatch, 10, 5, 5)
    assert Detector(MODEL, device="cpu", precision="auto", threads=1).provider == "openvino fp32"

    def refuses(*_: object) -> None:
        raise ModelError("gone")

    monkeypatch.setattr(engine_choice, "OpenVinoSession", refuses)
    given_times(monkeypatch, 10)
    detector = Detector(MODEL, device="cpu", precision="auto", threads=1)
    assert detector.provider == "CPUExecutionProvider"
    assert "openvino fp32 left out: gone" in detector.choice


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(engine_times, "processor_fingerprint", lambda: "another"),
        lambda patch: patch.setattr(engine_times, "usable_cores", lambda: 99),
        lambda patch: patch.setattr(engine_times, "package_version", lambda package: f"{package} 9"),
    ],
    ids=["processor", "cores", "version"],
)
def test_another_machine_is_timed_again(change: Any, timings: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(MODEL, "cpu", 1)
    for _ in range(2):
        choose_engine(MODEL, PASSED, session, 1)
    assert len(timings) == 1
    change(monkeypatch)
    choose_engine(MODEL, PASSED, session, 1)
    assert len(timings) == 2
    choose_engine(MODEL, PASSED, session, 2)  # threads
    assert len(timings) == 3


@pytest.mark.parametrize("home", ["a file", "not there"])
def test_a_cache_that_cannot_be_written_is_no_error(
    home: str, tmp_path: Path, timings: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if home == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:

        def none() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", none)
    for count in (1, 2):
        detector = Detector(MODEL, device="cpu", precision="auto", threads=1)
        assert "not kept (" in detector.choice
        assert len(timings) == count


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["fingerprint", "milliseconds", "left_out", *ALL]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_a_damaged_cache_counts_as_none(data: bytes) -> None:
    times_path(KEY).parent.mkdir(parents=True, exist_ok=True)
    times_path(KEY).write_bytes(data)
    assert kept_times(KEY, ALL) is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3))
def test_only_times_that_can_be_are_read_back(values: list[float]) -> None:
    times = Times(dict(zip(ALL, values, strict=True)))
    keep_times(KEY, times)
    possible = all(np.isfinite(value) and value > 0 for value in values)
    assert kept_times(KEY, ALL) == (times if possible else None)
    assert list(times_path(KEY).parent.glob(".*")) == []


def test_a_damaged_cache_is_timed_again_and_mended(cache: Path, timings: list[list[str]]) -> None:
    for count in (1, 2):
        Detector(MODEL, device="cpu", precision="auto", threads=1)
        assert len(timings) == count
        (kept,) = kept_files(cache)
        kept.write_bytes(kept.read_bytes()[:40])


def test_the_command_reports_the_choice_in_one_line_on_stderr(
    run_command: Runner, tmp_path: Path, examples: Path
) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(MODEL)
    photo = sorted((examples / "real").iterdir())[0]
    for message in (b"; kept in ", b"; timed earlier, kept in "):
        done = run_command("screen", photo, "--model", model, "--precision", "auto", "--format", "jsonl")
        assert done.returncode == 0
        assert done.stderr.startswith(b"asr-screen: computed by ")
        assert message in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["image", "summary"]
