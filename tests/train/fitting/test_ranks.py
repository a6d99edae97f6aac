"""Several processes compute what one computes; a lost one ends the job, which can be resumed by fewer or more."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rank_program import main as run_one
from tiny_training import run_train, tiny_loop

from asr_models import load_checkpoint
from asr_runtime.errors import ConfigurationError
from asr_train.data.batches import RankBatches
from asr_train.data.draws import BalancedSampler
from asr_train.data.layouts import Sample, find_data
from asr_train.fitting import fit as fit_module
from asr_train.fitting.config import recipe
from asr_train.fitting.fit import resume, train
from asr_train.fitting.launch import launch, was_launched

_PROGRAM = Path(__file__).with_name("rank_program.py")
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
_VARIABLES = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*isinstance.treespec, LeafSpec.*", "ignore:.*lr_scheduler.step.*before.*"
)


def _run(ranks: int, data: Path, out: Path, **options: object) -> dict[str, Any]:
    """Train on several ranks that torchrun starts, or in this process; return the summary."""
    out.mkdir()
    if ranks == 1:
        run_one(str(data), str(out), json.dumps(options))
    else:
        starter = [*_TORCHRUN, f"--nproc-per-node={ranks}"]
        command = [sys.executable, *starter, str(_PROGRAM), str(data), str(out), json.dumps(options)]
        done = subprocess.run(
            command, env={**os.environ, **_VARIABLES}, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.mark.heavy
def test_ranks_compute_what_one_process_computes(pristine_generators: Path, tmp_path: Path) -> None:
    """20 steps of the recipe in float32: losses within 1e-4; the first epoch's figures, of equal weights, are equal."""
    one = _run(1, pristine_generators, tmp_path / "one", amp="off")
    several = _run(3, pristine_generators, tmp_path / "several", amp="off")  # of 8 pictures each has 3, 3 or 2
    assert (one["size"], several["size"], several["nodes"]) == (1, 3, 1)
    for a, b in zip(one["history"], several["history"], strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-4)
        assert a["val/loss"] == pytest.approx(b["val/loss"], abs=1e-4)
        assert {k: a[k] for k in ("val/acc", "val/auroc", "val/f1", "lr")} == {
            k: b[k] for k in ("val/acc", "val/auroc", "val/f1", "lr")
        }
    folder = Path(several["folder"])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert len(list(folder.glob("events*"))) == len(list(Path(one["folder"]).glob("events*")))


@pytest.mark.heavy
def test_the_closed_form_on_two_ranks_is_that_of_one_process(pristine_generators: Path, tmp_path: Path) -> None:
    one = _run(1, pristine_generators, tmp_path / "one", model="asrnet-lite")
    two = _run(2, pristine_generators, tmp_path / "two", model="asrnet-lite")
    heads = [load_checkpoint(Path(r["folder"]) / "checkpoint_asrnet-lite.pth").network.head for r in (one, two)]  # type: ignore[union-attr]
    for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.allclose(a, b, rtol=1e-6, atol=0)
    assert one["val_auroc"] == two["val_auroc"]
    assert one["calibration"] == two["calibration"]


@pytest.mark.heavy
def test_srun_starts_ranks_too(pristine_generators: Path, tmp_path: Path) -> None:
    """With the variables that srun sets: two tasks on one node. Bad files, mixed precision and accumulation as well."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}
    slurm |= {"SLURM_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SLURM_NODEID": "0"}
    options = json.dumps({"epochs": 2, "epoch_size": 16, "accumulate": 2, "amp": "bf16"})
    tasks = [
        subprocess.Popen(
            [sys.executable, str(_PROGRAM), str(pristine_generators), str(tmp_path), options],
            env={**os.environ, **_VARIABLES, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    messages = [task.communicate(timeout=200)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], messages
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["size"], len(summary["history"])) == (2, 2)
    # 16 draws, batches of 8 in two parts: 2 steps an epoch.
    assert torch.load(Path(summary["folder"]) / "resume.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.heavy
def test_a_killed_rank_ends_the_job_with_one_line_and_one_process_goes_on(generators: Path, tmp_path: Path) -> None:
    source = "from asr_train.cli import train_command as c; c()"
    options = ["--data", generators, "--dim", 4, "--crop-size", 48, "--batch-size", 8, "--workers", 0]
    options += ["--devices", 2, "--epochs", 1000, "--save-every", 1, "--runs", tmp_path / "runs"]
    command = [sys.executable, "-c", source, *map(str, options)]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **_VARIABLES}) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "epoch 2/1000" in line:
                break
        children = psutil.Process(process.pid).children()
        ranks = {rank: child.pid for child in children if (rank := child.environ().get("RANK"))}
        os.kill(ranks["1"], signal.SIGKILL)
        killed = time.monotonic()
        rest = [line for line in process.stderr if not re.search(r" epoch \d+/1000 ", line)]
    assert time.monotonic() - killed < 60
    assert sum("generators: train" in line for line in lines) == 1  # rank 0 speaks for all
    (folder,) = (tmp_path / "runs").iterdir()
    assert process.returncode == 1
    assert "".join(rest).split("asr-train: ")[-1].split() == (
        f"process 1 of 2 was killed by SIGKILL; all others were stopped; go on with asr-train --resume {folder}".split()
    )
    assert len(rest) == 1, rest
    done = len(torch.load(folder / "resume.ckpt", weights_only=True)["callbacks"]["BestEpoch"]["history"])
    assert resume(folder, epochs=done + 1).summary["epochs"] == done + 1


def test_an_epoch_that_was_interrupted_goes_on_behind_its_last_batch(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_loop(generators, epoch_size=16, save_every=1, lr=1e-3)
    whole = train(config, tmp_path / "whole")

    @contextlib.contextmanager
    def stopping(_: Callable[[], str | None]) -> Iterator[Callable[[], None]]:
        batches = iter(range(100))

        def check() -> None:
            if next(batches) == 9:  # 4 batches of training, 2 of validation, and the fourth of epoch 2
                raise KeyboardInterrupt

        yield check

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "stop_on_signal", stopping)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config, tmp_path / "part")
    (part,) = (tmp_path / "part").iterdir()
    saved = torch.load(part / "resume.ckpt", weights_only=True)
    assert saved["global_step"] % 4 != 0  # inside an epoch
    done = resume(part)
    a, b = (torch.load(f / "resume.ckpt", weights_only=True)["state_dict"] for f in (whole.folder, done.folder))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_ranks_share_every_batch_without_overlap(pristine_generators: Path) -> None:
    samples = find_data(pristine_generators).train
    whole = list(RankBatches(BalancedSampler(samples, "sources", 40, seed=3), 8))
    for size in (2, 3, 4):
        parts = [
            list(RankBatches(BalancedSampler(samples, "sources", 40, seed=3), 8, rank, size)) for rank in range(size)
        ]
        for number, batch in enumerate(whole):
            shares = [part[number] for part in parts]
            assert sorted(item for share in shares for item in share) == sorted(batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    draws = BalancedSampler([Sample(Path(str(i)), i % 2, "ab"[i % 2]) for i in range(9)], "sources", 4000, seed=0)
    labels = [i % 2 for share in RankBatches(draws, 100, 1, 4) for i, _ in share]
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 6, "accumulate": 4}, "batch_size 6: expected a multiple of accumulate 4"),
        ({"accumulate": 0}, "accumulate 0"),
        ({"save_every": 0}, "save_every 0"),
        ({"lr": float("nan")}, "lr nan: expected a number above 0"),
        ({"lr": float("inf")}, "lr inf"),
        ({"weight_decay": float("nan")}, "weight_decay nan: expected 0 or more"),
        ({"seed": -1}, "seed -1: expected 0 to 4294967295"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"preprocess": {"mode": "crop", "size": 100_000}}, "preprocess size 100000: expected 1 to 4096 pixels"),
    ],
)
def test_values_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        recipe("asrnet", **given)


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({}, ["--nodes", 2], "--nodes 2: expected MASTER_ADDR, the address of the first machine, and NODE_RANK"),
        ({}, ["--devices", 2, "--protocol", "learning-curves"], "trains in one process; leave out --devices"),
        ({"RANK": "x"}, [], "start with torchrun or srun"),
        ({"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}, [], "expected as many on every machine"),
    ],
)
def test_ranks_that_cannot_be_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: list[object], message: str
) -> None:

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run_train(*options)
    assert (done.exit_code, message in done.output, done.output.count("\n")) == (2, True, 1), done.output


def test_a_refused_launch_leaves_nothing_for_later_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("NODE_RANK", raising=False)
    with pytest.raises(ConfigurationError):
        launch([], 1, 2, str)
    assert not was_launched()
