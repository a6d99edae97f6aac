"""Training: one function from a configuration to a run folder.

    asr-train --model asrnet --data DIR                        one machine, CPU or one GPU
    asr-train --model asrnet --data DIR --devices 8            one machine, 8 GPUs
    asr-train --resume runs/run-20260101-120000                goes on where it stopped, as it would have gone on

A run folder holds config.toml, environment.json, data.json, TensorBoard events, resume.ckpt (Lightning's, after every
epoch), checkpoint_<model>.pth (the best epoch, calibrated when the run ends) and summary.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from asr_models import (
    ASRNetLite,
    Checkpoint,
    FFTResNet,
    InputTransform,
    ModelsError,
    create_model,
    load_checkpoint,
    save_checkpoint,
)
from asr_runtime.errors import ConfigurationError, DatasetError, InputError
from asr_runtime.machine import package_version
from asr_runtime.whole_file import whole_file
from asr_train.data.families import find_families
from asr_train.data.json_file import read_json, write_json
from asr_train.data.layouts import DataFolder, picture_counts
from asr_train.data.shards import is_sharded
from asr_train.figures.calibrate import FittedCalibration, calibrate, calibrate_video
from asr_train.figures.scoring import score_checkpoint, score_clips, torch_device
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, TrainConfig
from asr_train.fitting.config_file import CONFIG, load_config, write_config
from asr_train.fitting.launch import note_run, was_launched
from asr_train.fitting.loop import RESUME, BestEpoch, DetectorModule, epochs_done, run_loop
from asr_train.fitting.ranks import ALONE, Ranks, losing_ranks
from asr_train.fitting.stopping import stop_on_signal
from asr_train.fitting.video_rules import video_rule, whole_video_rule
from asr_train.tracking.tracking import Tracking, begin_mlflow, tracked

__all__ = ["Run", "how_to_go_on", "resume", "train", "untrained"]

log = logging.getLogger("asr_train")

_FACTS = (CONFIG, "data.json", "environment.json", "summary.json")
_LEAST = {"train": 2, "val": 1}  # images of each class


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the calibrated checkpoint and the summary that summary.json holds."""

    folder: Path
    checkpoint: Path
    summary: Mapping[str, Any]

    @property
    def best(self) -> str:
        """Name the best validation score and its epoch."""
        monitor = self.summary["config"].get("monitor", "auroc")
        where = f" in epoch {epoch}" if (epoch := self.summary["best_epoch"]) else ""
        return f"{monitor} {self.summary[f'val_{monitor}']:.4f}{where}"


def train(
    config: TrainConfig,
    runs: Path = Path("runs"),
    *,
    progress: bool = False,
    ranks: Ranks = ALONE,
    mlflow: str | None = None,
) -> Run:
    """Train, keep the best epoch, calibrate it on the validation split.

    Args:
        config: what to compute.
        runs: a new folder `run-YYYYmmdd-HHMMSS` is made in it.
        progress: show a progress bar on stderr.
        ranks: the processes that train together; each calls this function.
        mlflow: address of MLflow, `sqlite:///FILE` or a server's URL; None: TensorBoard only.

    Raises:
        DatasetError: the data folder does not fit its layout, or a split has too few images of a class.
        ModelsError: network, options or pretrained weights cannot be had.
        ConfigurationError: MLflow cannot be used at that address.
    """
    return _train(config, runs, None, progress, ranks, mlflow)


def resume(
    folder: Path,
    epochs: int | None = None,
    data: Path | None = None,
    *,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """Go on with a run where its last finished epoch ended, in the same folder.

    Args:
        folder: the run folder.
        epochs: a new number of epochs in all; None keeps the run's own.
        data: where its data folder is now; None: where it was.
        progress: show a progress bar on stderr.
        ranks: the processes that go on together, as many or as few as may be.

    Raises:
        ConfigurationError: not a run folder, it is damaged, it never finished an epoch, or has finished more than
            `epochs`.
        DatasetError: the data folder has changed since.
    """
    config = ranks.from_first(lambda: _resumed_config(folder, epochs, data))
    return _train(config, folder.parent, folder, progress, ranks, None)


def _resumed_config(folder: Path, epochs: int | None, data: Path | None) -> LoopConfig:
    if not (folder / CONFIG).is_file() or not (folder / RESUME).is_file():
        raise ConfigurationError(f"{folder}: not a run that can be resumed: expected {CONFIG} and {RESUME} in it")
    try:
        config = load_config(folder / CONFIG)
    except (ConfigurationError, ModelsError) as error:
        raise ConfigurationError(f"{folder}: its configuration is damaged ({error}); start a new run") from None
    if not isinstance(config, LoopConfig):
        raise ConfigurationError(f"{folder}: {config.model} is solved for in one step; start a new run")
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    if (done := epochs_done(folder)) > config.epochs:
        raise ConfigurationError(f"{folder}: {done} epochs are done already; expected --epochs {done} or more")
    if data is not None:
        config = dataclasses.replace(config, data=str(data))
    elif not is_sharded(config.data) and not Path(config.data).is_dir():
        raise DatasetError(f"{config.data}: no such folder; if the data of {folder} moved, add --data DIR")
    return config


def _train(
    config: TrainConfig, runs: Path, resumed: Path | None, progress: bool, ranks: Ranks, mlflow: str | None
) -> Run:
    data = ranks.from_first(lambda: _checked_data(config))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.threads:
        torch.set_num_threads(config.threads)
    network: nn.Module = ranks.from_first(lambda: _network(config, resumed is not None))
    folder = ranks.from_first(lambda: _prepared_folder(config, data, runs, resumed))
    if mlflow is not None:
        ranks.from_first(lambda: begin_mlflow(folder, mlflow))
    with tracked(folder, ranks.is_first) as tracking:
        if ranks.is_first:
            transform = InputTransform(**config.preprocess)
            tracking.begin(config.published(), data.train, transform, config.augment, config.seed)
        run = _fitted(network, config, data, folder, resumed is not None, progress, ranks, tracking)
        if ranks.is_first:
            tracking.end(run.summary, [run.checkpoint, *(folder / name for name in _FACTS)])
    return run


def _fitted(
    network: nn.Module,
    config: TrainConfig,
    data: DataFolder,
    folder: Path,
    resumed: bool,
    progress: bool,
    ranks: Ranks,
    tracking: Tracking,
) -> Run:
    """Solve for the head, or run the loop."""
    if isinstance(config, ClosedFormConfig):
        assert isinstance(network, ASRNetLite)
        advice = (
            f"extracted features are in {folder.parent / 'features'}; run the same command again to go on from there"
        )
        with losing_ranks(ranks, lambda: advice), stop_on_signal(_said_by_rank_0(lambda: advice, ranks)):
            return _solve(network, config, data, folder, ranks)
    assert isinstance(config, LoopConfig)
    fit = DetectorModule(network, InputTransform(**config.preprocess), config, data, ranks)
    best = BestEpoch(folder / f"checkpoint_{config.model}.pth", config)
    started = time.monotonic()
    go_on = partial(how_to_go_on, folder)
    with losing_ranks(ranks, go_on), stop_on_signal(_said_by_rank_0(go_on, ranks)) as check_stop:
        run_loop(fit, best, config, data, folder, resumed, progress, check_stop, loggers=tracking.loggers)
        unreadable = {path: why for part in ranks.gather(fit.unreadable) for path, why in part.items()}
        seconds = time.monotonic() - started
        summary = ranks.from_first(lambda: _finish(unreadable, best, config, data, folder, seconds))
    return Run(folder, best.path, summary)


def _said_by_rank_0(say: Callable[[], str], ranks: Ranks) -> Callable[[], str | None]:
    """A signal reaches all ranks; the process that started them speaks for them, or else rank 0."""
    return lambda: say() if ranks.is_first and not was_launched() else None


def how_to_go_on(folder: Path) -> str:
    """Say how a run that was stopped can be continued."""
    if (folder / RESUME).is_file():
        return f"go on with asr-train --resume {folder}"
    return f"no epoch was finished, so {folder} cannot be resumed; start again"


def _checked_data(config: TrainConfig) -> DataFolder:
    data = config.pictures()
    _check_enough(data)
    _warn_of_lone_sources(data)
    return data


def _network(config: TrainConfig, resumed: bool) -> nn.Module:
    return pretrained(config) if isinstance(config, ClosedFormConfig) else untrained(config, resumed)


def _prepared_folder(config: TrainConfig, data: DataFolder, runs: Path, resumed: Path | None) -> Path:
    """Make the run folder, or check the one that is resumed, and write what the run is."""
    facts = data.summary()
    if resumed is not None:
        _check_same_data(resumed, data.root, facts)
    folder = resumed or _new_folder(runs)
    note_run(folder)
    write_config(folder / CONFIG, config)
    write_json(folder / "environment.json", _environment(), sort_keys=True)
    write_json(folder / "data.json", facts, sort_keys=True)
    if isinstance(config, LoopConfig):
        _warn_of_small_images(data, InputTransform(**config.preprocess))
    return folder


def _check_enough(data: DataFolder) -> None:
    """Refuse splits that no training can work with.

    Raises:
        DatasetError: too few images of a class; the message says how many are needed.
    """
    for name, least in _LEAST.items():
        counts: Counter[int] = Counter()
        for (label, _), number in picture_counts(data.split(name)).items():
            counts[label] += number
        if min(counts[0], counts[1]) < least:
            raise DatasetError(
                f"{data.root}: the split {name!r} has {counts[0]} real and {counts[1]} AI-generated images; training "
                f"needs {_LEAST['train']} of each class, and {_LEAST['val']} of each to validate (held out of them "
                "where there is no folder val); some hundreds of each make a detector that is of use"
            )


def untrained(config: TrainConfig, resumed: bool = False) -> nn.Module:
    """Build the network of a loop, on its pretrained backbone; what is resumed brings its own weights.

    Raises:
        ModelsError: network, options or pretrained weights cannot be had.
        ConfigurationError: the network has no pretrained weights.
    """
    network = create_model(config.model, **config.options)
    if config.weights != "none" and not resumed:
        if not isinstance(network, FFTResNet):
            raise ConfigurationError(f"{config.model} has no pretrained weights; use --weights none")
        network.load_pretrained(config.weights)
    return network


def _solve(network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path, ranks: Ranks) -> Run:
    """Solve for the head in closed form; calibrate it on margins from heads that had not seen the picture.

    Verdicts on videos are calibrated alike, on clips made of those pictures. Every process has features of some
    pictures; all go through the same steps, and the first writes.
    """
    started = time.monotonic()
    families = ranks.from_first(lambda: find_families(data, Path(config.families) if config.families else None))
    solved = ClosedForm(network, config, data, folder.parent, families, ranks=ranks)
    fitted_on = solved.calibrated_on()
    fitted, whole = solved.thresholds(fitted_on)
    head = solved.head()
    scored = solved.score(head, fitted, data.val)
    facts: dict[str, Any] = {
        "best_epoch": 0,
        "epochs": 0,
        "val_auroc": float(roc_auc_score(scored.labels, scored.margins)),
        "lone_sources": list(solved.lone_sources),
    }
    if pairs := solved.pair_figures(head):
        facts["val_pairs"] = pairs
    centre, clips_of = solved.clip_margins(head), f"H.264 clips made of {fitted_on}"
    rule, facts["val_video"] = video_rule(centre, fitted, clips_of)
    if whole is not None and whole.top == len(whole.windows):  # the mean of all windows is linear, as clips need it
        clips = solved.clip_margins(head, whole=True)
        whole, facts["val_video_whole"] = whole_video_rule(clips, centre, whole, clips_of)
    path = folder / f"checkpoint_{config.model}.pth"
    checkpoint = Checkpoint(
        config.model,
        config.options,
        config.preprocess,
        solved.install(network, head),
        video=dataclasses.asdict(rule),
        whole=dataclasses.asdict(whole) if whole is not None else {},
    )
    seconds = time.monotonic() - started

    def written() -> dict[str, Any]:
        summary = _save(path, checkpoint, fitted, config, data, facts, seconds, solved.store.unreadable)
        write_json(folder / "summary.json", summary, sort_keys=True)
        return summary

    return Run(folder, path, ranks.from_first(written))


def _finish(
    unreadable: Mapping[str, str], best: BestEpoch, config: LoopConfig, data: DataFolder, folder: Path, seconds: float
) -> dict[str, Any]:
    """Calibrate the best epoch on the validation split; write it again with all its facts, and summary.json."""
    checkpoint = load_checkpoint(best.path)
    device = torch_device("auto")
    scored = score_checkpoint(checkpoint, data.val, config.quality, config.batch_size, config.workers, device)
    equalised = f", every image re-encoded at JPEG {config.quality}" if config.quality else ""
    fitted_on = f"the validation split of {data.root.name} ({len(scored.labels)} images{equalised})"
    if len(scored.labels) == 0:
        raise DatasetError(f"{data.root}: no validation image could be read")
    fitted = calibrate(scored.labels, scored.margins, fitted_on)
    labels, margins = score_clips(checkpoint, data.val, config.quality, config.batch_size, config.workers, device)
    rule = calibrate_video(labels, fitted.calibration.log_odds(margins), f"H.264 clips made of {fitted_on}")
    checkpoint = dataclasses.replace(checkpoint, video=dataclasses.asdict(rule))
    facts = {
        "best_epoch": best.epoch,
        "epochs": len(best.history),
        f"val_{config.monitor}": best.score if config.monitor != "loss" else -best.score,
    }
    summary = _save(best.path, checkpoint, fitted, config, data, facts, seconds, unreadable)
    summary["history"] = best.history
    write_json(folder / "summary.json", summary, sort_keys=True)
    return summary


def _save(
    path: Path,
    checkpoint: Checkpoint,
    fitted: FittedCalibration,
    config: TrainConfig,
    data: DataFolder,
    facts: Mapping[str, Any],
    seconds: float,
    unreadable: Mapping[str, str],
) -> dict[str, Any]:
    """Write the checkpoint with its calibration and all facts of the run; return them."""
    summary = {
        "model": config.model,
        **facts,
        "seed": config.seed,
        "minutes": round(seconds / 60, 1),
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "config": config.published(),
        "data": data.summary(),
        "left_out": list(config.leave_out),
        "unreadable": sorted(Path(name).name for name in unreadable),
    }
    summary = json.loads(json.dumps(summary))
    calibrated = dataclasses.replace(
        checkpoint,
        calibration=_plain(fitted.calibration),
        decision=_plain(fitted.decision),
        operating_points=tuple(_plain(p) for p in fitted.operating_points),
        training=summary,
    )
    with whole_file(path) as part:
        save_checkpoint(part, calibrated)
    return {**summary, "calibration": _plain(fitted.calibration)}


def _plain(fact: Any) -> dict[str, Any]:
    return dict(vars(fact))


def _warn_of_small_images(data: DataFolder, preprocess: InputTransform) -> None:
    """Say when a crop is mostly mirrored continuation: it costs time and shows the network nothing."""
    sides = []
    for sample in data.train[:: max(1, len(data.train) // 20)]:
        with contextlib.suppress(InputError):
            sides.append(min(sample.read().shape[:2]))
    typical = int(np.median(sides)) if sides else preprocess.size
    if preprocess.mode == "crop" and typical <= preprocess.size // 2:
        log.warning(
            "images are about %d px, the crop is %d px: they are continued by mirroring; --crop-size %d fits them",
            typical,
            preprocess.size,
            typical,
        )


def _warn_of_lone_sources(data: DataFolder) -> None:
    """Say when a class has one source only: no threshold can be tried on another."""
    for label, kind in ((0, "real"), (1, "AI-generated")):
        sources = {source for k, source in picture_counts(data.train) if k == label}
        if len(sources) == 1:
            log.warning(
                "%s is the only source of %s images: thresholds are fitted on other images of it and hold for that "
                "source only; add a second source for thresholds that hold elsewhere",
                sources.pop(),
                kind,
            )


def _check_same_data(folder: Path, root: Path, facts: Mapping[str, Any]) -> None:
    before = read_json(folder / "data.json")
    if before.get("fingerprint") != facts["fingerprint"]:
        raise DatasetError(f"{root}: not the data that {folder} was begun with, or changed since; start a new run")


def _new_folder(runs: Path) -> Path:
    stamp = time.strftime("run-%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = runs / (stamp + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise ConfigurationError(f"{runs}: no free name for a run folder")


def _environment() -> dict[str, Any]:
    packages = ("asrnet-edge", "torch", "torchvision", "lightning", "numpy", "opencv-python")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "packages": {name: package_version(name) for name in packages},
    }
