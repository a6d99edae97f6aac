"""Training for real, on a handful of pictures: what it writes, that it resumes exactly, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import run_train, tiny_loop

from asr_models import WeightsError, create_model, load_checkpoint
from asr_runtime.errors import ConfigurationError, DatasetError, OutputError
from asr_train.cli import evaluate_command
from asr_train.fitting.config import LoopConfig, recipe
from asr_train.fitting.config_file import load_config
from asr_train.fitting.fit import resume, train

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of lightning and tensorboard
    "ignore:.*isinstance.treespec, LeafSpec.*",
    "ignore:.*lr_scheduler.step.*before.*optimizer.step.*",
)


def _tiny(data: Path, **changes: object) -> LoopConfig:
    return tiny_loop(data, **{"lr": 1e-3, **changes})


def test_a_run_folder_holds_what_the_run_was_and_what_came_of_it(generators: Path, tmp_path: Path) -> None:
    run = train(_tiny(generators), tmp_path / "runs")
    assert run.folder.parent == tmp_path / "runs"
    assert run.folder.name.startswith("run-")
    files = {p.name for p in run.folder.iterdir()}
    assert {
        "config.toml",
        "environment.json",
        "data.json",
        "summary.json",
        "resume.ckpt",
        "checkpoint_asrnet.pth",
    } <= files
    assert load_config(run.folder / "config.toml") == _tiny(generators)
    loaded = load_checkpoint(run.checkpoint)
    assert (loaded.name, loaded.options, loaded.preprocess["size"]) == ("asrnet", {"dim": 4}, 48)
    assert "validation split of generators" in loaded.calibration["fitted_on"]
    assert loaded.training["data"]["images"]["train"]["ai"] == {"midjourney": 4, "sd3": 8}
    events = EventAccumulator(str(run.folder))
    events.Reload()
    assert {"train/loss", "train/acc", "lr", "val/loss", "val/acc"} <= set(events.Tags()["scalars"])


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(generators: Path, tmp_path: Path) -> None:
    # Constant learning rate: a schedule over more epochs would differ from the start.
    config = _tiny(generators, schedule="plateau", warmup_epochs=0.0)
    whole = train(dataclasses.replace(config, epochs=3), tmp_path / "whole")
    part = train(dataclasses.replace(config, epochs=1), tmp_path / "part")
    resumed = resume(part.folder, epochs=3)
    assert resumed.folder == part.folder
    losses = [[e["train/loss"] for e in r.summary["history"]] for r in (whole, resumed)]
    assert losses[0] == losses[1]
    a, b = (torch.load(r.folder / "resume.ckpt", weights_only=True)["state_dict"] for r in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_images_much_smaller_than_the_crop_are_reported(
    tmp_path: Path, generators: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("asr_train"), "propagate", True)
    large = dataclasses.replace(_tiny(generators, epochs=1), preprocess={"mode": "crop", "size": 480})
    train(dataclasses.replace(large, batch_size=2, epoch_size=2), tmp_path / "runs")
    assert "--crop-size 192 fits them" in caplog.text
    caplog.clear()
    train(_tiny(generators, epochs=1), tmp_path / "runs")
    assert "fits them" not in caplog.text


@pytest.mark.parametrize(
    ("number", "workers", "code"), [(signal.SIGINT, 2, 130), (signal.SIGTERM, 2, 143)], ids=["ctrl-c", "group"]
)
def test_a_stopped_run_says_how_to_go_on_and_can_be_resumed(
    generators: Path, tmp_path: Path, number: signal.Signals, workers: int, code: int
) -> None:
    """As a terminal, `timeout`, systemd and SLURM stop it: the reading processes get the signal too."""
    source = "from asr_train.cli import train_command as c; c()"
    options = ["--data", generators, "--dim", 4, "--crop-size", 48, "--batch-size", 4, "--workers", workers]
    command = [sys.executable, "-c", source, *map(str, options), "--runs", str(tmp_path / "runs"), "--epochs", "1000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 3/1000" in line:
                os.kill(process.pid, number)
                time.sleep(0.01)  # `timeout` signals the process, then its group
                os.killpg(process.pid, number)
                break
        messages = process.stderr.read()
    (folder,) = (tmp_path / "runs").iterdir()
    assert process.returncode == code, messages
    assert f"stopped by {number.name}; go on with asr-train --resume {folder}" in messages
    assert "Traceback" not in messages
    epochs = len(torch.load(folder / "resume.ckpt", weights_only=True)["callbacks"]["BestEpoch"]["history"])
    assert load_checkpoint(folder / "checkpoint_asrnet.pth").name == "asrnet"
    with pytest.raises(
        ConfigurationError, match=f"{epochs} epochs are done already; expected --epochs {epochs} or more"
    ):
        resume(folder, epochs=epochs - 1)
    moved = generators.rename(tmp_path / "moved")
    with pytest.raises(DatasetError, match=r"no such folder; if the data .* moved, add --data DIR"):
        resume(folder, epochs=epochs)
    assert resume(folder, epochs=epochs, data=moved).summary["epochs"] == epochs
    next(moved.rglob("*.jpg")).write_bytes(b"another picture")
    with pytest.raises(DatasetError, match=r"not the data that .* was begun with, or changed since"):
        resume(folder, epochs=epochs, data=moved)


@pytest.fixture(scope="module")
def finished(pristine_generators: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    return train(_tiny(pristine_generators, epochs=1), tmp_path_factory.mktemp("runs")).folder


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("config.toml", b"", "configuration is damaged"),
        ("config.toml", b'model = "asrnet', "configuration is damaged"),
        ("config.toml", b'model = "asrnet"\naugment = 3\n', "expected a table [augment]"),
        ("config.toml", b'model = "none"\ndata = ""\n[options]\n[augment]\n[preprocess]\n', "none"),
        ("config.toml", b"\xff\xfe\x00", "configuration is damaged"),
        ("data.json", b"{", "data.json: damaged, not JSON"),
        ("data.json", b"{}", "not the data that"),
        ("resume.ckpt", b"PK\x03\x04", "resume.ckpt: damaged"),
        ("resume.ckpt", b"", "resume.ckpt: damaged"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(
    pristine_generators: Path, tmp_path: Path, finished: Path, name: str, damage: bytes, message: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).write_bytes(damage)
    done = run_train("--resume", run, "--data", pristine_generators)
    assert (done.exit_code, message in done.output, done.output.count("\n")) == (2, True, 1), done.output


def test_a_run_with_the_weights_of_another_network_is_refused_in_one_line(
    pristine_generators: Path, tmp_path: Path, finished: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    config = (run / "config.toml").read_text()
    assert "dim = 4" in config
    (run / "config.toml").write_text(config.replace("dim = 4", "dim = 8"))
    done = run_train("--resume", run, "--data", pristine_generators, "--epochs", 2)
    said = "config.toml and resume.ckpt are of different networks; start a new run"
    assert (done.exit_code, said in done.output, "Traceback" in done.output) == (2, True, False), done.output


def test_a_place_where_no_run_folder_can_be_made_is_named(generators: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/run-[-0-9]+: cannot be made \(.*\); expected a folder with space"):
        train(_tiny(generators, epochs=1), tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut", pickle.dumps({"a": 1}), None])
@pytest.mark.parametrize("model", ["asrnet-lite", "fft-resnet18"])
def test_weights_that_are_none_are_refused_in_one_line(tmp_path: Path, model: str, content: bytes | None) -> None:
    file = tmp_path / "weights.pth"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth") as caught:
        create_model(model).load_pretrained(str(file))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_too_few_images_say_how_many_are_needed(generators: Path, tmp_path: Path) -> None:
    for name in ("photos", "sd3"):
        shutil.rmtree(generators / name)
    for path in sorted((generators / "snaps" / "train" / "nature").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DatasetError, match="has 1 real and 4 AI-generated images; training needs 2 of each class"):
        train(_tiny(generators), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_one_image_of_each_class_says_how_many_are_needed(tmp_path: Path, examples: Path) -> None:
    for name, source in (("0_real", "real"), ("1_fake", "ai")):
        (tmp_path / "train" / name).mkdir(parents=True)
        shutil.copy(min((examples / source).iterdir()), tmp_path / "train" / name)
    with pytest.raises(DatasetError, match="training needs 2 of each class, and 1 of each to validate"):
        train(_tiny(tmp_path), tmp_path / "runs")


def test_a_detector_learns_what_can_be_learnt(tmp_path: Path) -> None:
    """Smooth against noisy pictures: a task any residual network solves, so the loop must."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(16):
            smooth = cv2.resize(
                rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC
            )
            noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
            for name, image in (("0_real", smooth), ("1_fake", noisy)):
                folder = tmp_path / "data" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{i}.png"), image)
    run = train(_tiny(tmp_path / "data", epochs=4, epoch_size=64, lr=3e-3), tmp_path / "runs")
    assert run.summary["val_auroc"] > 0.95


def test_an_unreadable_training_file_is_named_counted_and_skipped(
    generators: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (generators / "sd3" / "val" / "ai" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    run = train(_tiny(generators, epochs=1), tmp_path / "runs")
    assert [Path(p).name for p in run.summary["unreadable"]] == ["broken.jpg"]


def test_the_published_command_lines_work(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # --data is the folder `dataset`, as published
    line = "--model asrnet --epochs 1 --batch_size 8 --lr 2e-4 --dim 4 --crop_size 48 --workers 0"
    done = run_train(*line.split())
    assert done.exit_code == 0, done.output
    (run,) = (tmp_path / "runs").iterdir()
    line = f"--model asrnet --checkpoint {run}/checkpoint_asrnet.pth --workers 0"
    done = CliRunner().invoke(evaluate_command, line.split())
    assert done.exit_code == 0, done.output
    assert "6 images: 3 real, 3 AI-generated" in done.output
    written = {p.name for p in (run / "evaluation").iterdir()}
    assert {"metrics.json", "report.html", "report.txt", "result.csv"} <= written
    rows = (run / "evaluation" / "result.csv").read_text().splitlines()
    assert rows[0].startswith("image_id,label")
    assert len(rows) == 7


def test_leaving_one_generator_out_never_shows_it(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asr_train.data.degradations import degradation
    from asr_train.protocols.leave_out import leave_out_protocol

    config = _tiny(generators, epochs=1)
    result = leave_out_protocol("leave-one-generator-out", config, tmp_path / "runs", at_least=3)
    assert set(result["generators"]) == {"midjourney", "sd3"}
    figures = result["generators"]["sd3"]
    assert (figures["ai"], figures["real"]) == (4, 8)
    summary = json.loads((tmp_path / "runs" / figures["run"] / "summary.json").read_text())
    assert summary["left_out"] == ["sd3"]
    assert "sd3" not in json.dumps(summary["data"])
    again = leave_out_protocol("leave-one-generator-out", config, tmp_path / "runs", at_least=3)
    assert again == result  # nothing was trained again: the run folder's name is the same
    next((generators / "photos" / "val" / "nature").iterdir()).unlink()
    given = {"at_least": 3, "progress": False, "degradations": [degradation("jpeg", 90)]}
    changed = leave_out_protocol("leave-one-generator-out", config, tmp_path / "runs", **given)["generators"]["sd3"]
    assert changed["real"] == 7  # other data under the same name: not the old figures
    assert changed["degraded"]["jpeg 90"]["auroc"] == changed["auroc"]  # every picture is judged at JPEG 90 anyway


@pytest.mark.heavy
@pytest.mark.parametrize("spectrum", ["global", "patch"])
def test_the_fft_resnet_trains_in_its_published_recipe(generators: Path, tmp_path: Path, spectrum: str) -> None:
    done = run_train(
        "--model", "fft-resnet34", "--spectrum", spectrum, "--weights", "none", "--data", generators,
        "--epochs", 1, "--batch-size", 4, "--epoch-size", 4, "--runs", tmp_path / "runs", "--workers", 0,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (run,) = (tmp_path / "runs").iterdir()
    assert load_checkpoint(run / "checkpoint_fft-resnet34.pth").options["spectrum"] == spectrum


def test_the_published_recipes_are_the_defaults() -> None:
    asrnet = recipe("asrnet")
    assert (asrnet.epochs, asrnet.batch_size, asrnet.lr, asrnet.weight_decay) == (50, 32, 2e-4, 1e-4)
    assert (asrnet.betas, asrnet.label_smoothing, asrnet.schedule, asrnet.final_lr) == (
        (0.937, 0.999),
        0.1,
        "cosine",
        0.01,
    )
    fft = recipe("fft-resnet34")
    assert (fft.epochs, fft.batch_size, fft.lr, fft.weight_decay) == (12, 64, 1e-3, 1e-2)
    assert (fft.schedule, fft.monitor, fft.patience, fft.min_delta) == ("plateau", "f1", 4, 0.003)
    assert (fft.weights, fft.options["freeze"]) == ("imagenet", True)
    local = recipe("fft-resnet34", options={"spectrum": "patch"}, weights="none")
    assert (local.epochs, local.batch_size, local.options["freeze"]) == (50, 96, False)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "resnet34"], "fft-resnet34"),
        (["--epochs", "0"], "epochs 0"),
        (["--data", "nowhere"], "no such folder"),
        (["--resume", "nowhere"], "not a run that can be resumed"),
        (["--resume", "nowhere", "--lr", "1"], "--lr: a resumed run keeps its own configuration"),
        (["--equalise", "0"], "from 1 to 100, or off"),
        (["--model", "fft-resnet34", "--dim", "8"], "no option 'dim'"),
        (["--weights", "imagenet"], "no pretrained weights"),
        (["--crop-size", "0"], "preprocess size 0"),
        (["--reencode", "1.5"], "reencode 1.5: expected a number from 0 to 1"),
        (["--quality", "90", "60"], "1 <= lowest <= highest <= 100"),
        (["--model", "fft-resnet18", "--weights", "none", "--spectrum", "patch", "--patch", "0"], "patch 0"),
        (
            ["--model", "fft-resnet18", "--weights", "none", "--spectrum", "patch", "--patch", "30", "--workers", "0"],
            "multiples of 30",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    args: list[str], message: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_train(*args)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "expected either --checkpoint X.pth or --model X.onnx"),
        (["--checkpoint", "a.pth", "--model", "a.onnx"], "expected either --checkpoint X.pth or --model X.onnx"),
        (["--checkpoint", "a.pth"], "a.pth: cannot be read"),
        (["--model", "a.onnx"], "a.onnx"),
        (
            ["--model", "asrnet-lite", "--split", "val", "--layout", "generators"],
            "no known layout|no image in any split",
        ),
    ],
)
def test_evaluation_says_what_it_lacks(
    args: list[str], message: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders.parent)
    result = CliRunner().invoke(evaluate_command, args)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output.replace("\n", " "))


def test_the_built_in_model_can_be_evaluated_by_name(folders: Path, tmp_path: Path) -> None:
    options = ["--model", "asrnet-lite", "--data", str(folders), "--report", str(tmp_path / "report")]
    result = CliRunner().invoke(evaluate_command, options)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["overall"]["images"] == 6


def test_a_diverging_run_says_so(generators: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"training diverged in epoch 1.*lower --lr"):
        train(_tiny(generators, epochs=1, lr=1e30, clip=0.0, warmup_epochs=0.0), tmp_path / "runs")
