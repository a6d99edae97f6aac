"""asr-doctor tries what a run needs, and reports what works."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from runtime_samples import Runner

from asr_runtime.doctor import examine
from asr_runtime.media.image import IMAGE_FORMATS


def test_what_works_here_is_found_to_work(model_path: Path) -> None:
    examined = examine(model_path)
    assert examined.ok
    results = {(check.group, check.name): check.ok for check in examined.checks}
    assert results["device", "cpu"]
    for name in (*IMAGE_FORMATS, "Sun raster", "MPO", "HEIC", "PNG, 16 bits"):
        assert results["image", name], name
    for name in ("H.264", "HEVC", "VP8", "VP9", "AV1", "MPEG-2", "MPEG-4", "MJPEG"):
        assert results["video", name]
    for name in ("--mqtt", "--metrics", "--isolate"):
        assert results["live", name]
    assert results["packages", "openvino"]
    assert examined.model["network"] == "brightness"
    assert examined.model["ms_per_image"] > 0
    assert examined.versions["numpy"] != "not installed"


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_command_is_0_when_all_that_is_needed_works(run_command: Runner, model_path: Path, form: str) -> None:
    done = run_command("doctor", "--model", model_path, "--format", form)
    assert done.returncode == 0, done.stdout
    assert done.stderr == b""
    if form == "json":
        assert json.loads(done.stdout)["ok"] is True
    else:
        assert b"asr-screen works on this machine" in done.stdout


def test_a_model_that_does_not_load_is_2_and_reported(run_command: Runner, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    done = run_command("doctor", "--model", tmp_path / "bad.onnx", "--format", "json")
    assert done.returncode == 2
    examined = json.loads(done.stdout)
    (cpu,) = [check for check in examined["checks"] if check["name"] == "cpu"]
    assert cpu["needed"] is True
    assert cpu["ok"] is False
    assert "bad.onnx" in cpu["detail"]


def test_heic_without_its_extra_is_named(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    examined = examine(model_path)
    assert examined.ok
    (check,) = [check for check in examined.checks if check.name == "HEIC"]
    assert not check.ok
    assert check.detail == "pillow_heif is not installed: pip install 'asrnet-edge[heic]'"


def test_openvino_is_optional(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    examined = examine(model_path)
    assert examined.ok
    (check,) = [check for check in examined.checks if check.name == "openvino"]
    assert not check.ok
    assert "pip install 'asrnet-edge[openvino]'" in check.detail


def test_output_that_cannot_be_written_is_3(run_command: Runner, model_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_command("doctor", "--model", model_path, capture_output=False, stdout=full)
    assert done.returncode == 3
