"""The whole chain, command by command: train, evaluate, export, screen; both ends give the same probabilities."""

from __future__ import annotations

import csv
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

_COMMANDS = {entry.name: entry for entry in metadata.entry_points(group="console_scripts")}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*isinstance.treespec, LeafSpec.*")


def _command(name: str, *args: object, code: int = 0) -> str:
    done = CliRunner().invoke(_COMMANDS[name].load(), [str(arg) for arg in args])
    assert done.exit_code == code, done.output
    return done.stdout


def test_screening_the_exported_file_equals_evaluating_the_checkpoint(generators: Path, tmp_path: Path) -> None:
    shutil.copy(Path(generators, "sd3", "val", "ai", "sd3-3-0.jpg"), generators / "sd3" / "val" / "ai" / "cut.jpg")
    cut = generators / "sd3" / "val" / "ai" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:5000])
    runs, exported = tmp_path / "runs", tmp_path / "x.onnx"
    options = [
        "--model",
        "asrnet",
        "--dim",
        "4",
        "--crop_size",
        "64",
        "--epochs",
        "1",
        "--batch_size",
        "4",
        "--workers",
        "0",
    ]
    _command("asr-train", *options, "--data", generators, "--runs", runs)
    (checkpoint,) = runs.glob("run-*/checkpoint_asrnet.pth")
    printed = _command(
        "asr-evaluate", "--checkpoint", checkpoint, "--data", generators, "--workers", 0, "--equalise", "off"
    )
    assert "unreadable, left out: 1" in printed
    _command("asr-export", checkpoint, "-o", exported)
    _command("asr-parity", checkpoint, exported)
    folders = [generators / source / "val" for source in ("photos", "snaps", "sd3", "midjourney")]
    lines = _command("asr-screen", "--model", exported, "--format", "jsonl", *folders, code=1).splitlines()
    records = [json.loads(line) for line in lines]
    summary = records.pop()
    assert {k: summary[k] for k in ("type", "read", "scored", "failed")} == {
        "type": "summary",
        "read": 17,
        "scored": 16,
        "failed": 1,
    }
    screened = {Path(r["source"]).name: r["probability"] for r in records if r["type"] == "image"}
    assert [Path(r["source"]).name for r in records if r["type"] == "error"] == ["cut.jpg"]
    with (checkpoint.parent / "evaluation" / "result.csv").open() as file:
        evaluated = {row["image_id"]: float(row["probability"]) for row in csv.DictReader(file)}
    assert screened.keys() == evaluated.keys()
    assert max(abs(screened[name] - evaluated[name]) for name in screened) < 1e-4
    printed = _command("asr-evaluate", "--model", exported, "--data", generators, "--report", tmp_path / "report")
    assert "16 images: 8 real, 8 AI-generated" in printed
