"""Training: one function from a configuration to a run folder.

    asr-train --model asrnet --data DIR                        one machine, CPU or one GPU
    asr-train --resume runs/run-20260101-120000                goes on where it stopped, as it would have gone on

A run folder holds config.json, environment.json, data.json, TensorBoard events, resume.ckpt (Lightning's, after every
epoch), checkpoint_<model>.pth (the best epoch, calibrated when the run ends) and summary.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import platform
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score

from asr_models import Checkpoint, FFTResNet, Preprocess, create_model, load_checkpoint, save_checkpoint
from asr_runtime.decode import read_image
from asr_runtime.errors import ConfigurationError, DatasetError, InputError
from asr_train.calibrate import calibrate
from asr_train.config import TrainConfig
from asr_train.data import BalancedSampler, Batch, EvaluationImages, TrainingImages, collate
from asr_train.evaluate import score_checkpoint
from asr_train.layouts import DataFolder, find_data

__all__ = ["Run", "resume", "train"]

log = logging.getLogger("asr_train")
_RESUME = "resume.ckpt"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the calibrated checkpoint and the summary that summary.json holds."""

    folder: Path
    checkpoint: Path
    summary: Mapping[str, Any]

    @property
    def best(self) -> str:
        """Name the best validation score and its epoch."""
        monitor = self.summary["config"]["monitor"]
        return f"{monitor} {self.summary[f'val_{monitor}']:.4f} in epoch {self.summary['best_epoch']}"


def train(config: TrainConfig, runs: Path = Path("runs"), *, progress: bool = False) -> Run:
    """Train, keep the best epoch, calibrate it on the validation split.

    Args:
        config: what to compute.
        runs: a new folder `run-YYYYmmdd-HHMMSS` is made in it.
        progress: show a progress bar on stderr.

    Raises:
        DatasetError: the data folder does not fit its layout, or a split holds one class.
        ModelsError: network, options or pretrained weights cannot be had.
    """
    return _train(config, runs, None, progress)


def resume(folder: Path, epochs: int | None = None, *, progress: bool = False) -> Run:
    """Go on with a run where its last finished epoch ended, in the same folder.

    Args:
        folder: the run folder.
        epochs: a new number of epochs in all; None keeps the run's own.
        progress: show a progress bar on stderr.

    Raises:
        ConfigurationError: not a run folder, or it never finished an epoch.
        DatasetError: the data folder has changed since.
    """
    if not (folder / "config.json").is_file() or not (folder / _RESUME).is_file():
        raise ConfigurationError(f"{folder}: not a run that can be resumed: expected config.json and {_RESUME} in it")
    config = TrainConfig.from_dict(json.loads((folder / "config.json").read_text()))
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    return _train(config, folder.parent, folder, progress)


def _train(config: TrainConfig, runs: Path, resumed: Path | None, progress: bool) -> Run:
    data = find_data(config.data, config.layout).without(config.leave_out)
    for split in ("train", "val"):
        if len({s.label for s in data.split(split)}) < 2:
            raise DatasetError(f"{data.root}: the split {split!r} holds one class; training needs both")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.threads:
        torch.set_num_threads(config.threads)
    network = create_model(config.model, **config.options)
    if config.weights != "none" and resumed is None:
        if not isinstance(network, FFTResNet):
            raise ConfigurationError(f"{config.model} has no pretrained weights; use --weights none")
        network.load_pretrained(config.weights)
    folder = resumed or _new_folder(runs)
    if resumed is not None:
        _check_same_data(folder, data)
    _write_json(folder / "config.json", config.to_dict())
    _write_json(folder / "environment.json", _environment())
    _write_json(folder / "data.json", data.summary())
    fit = _Fit(network, Preprocess(**config.preprocess), config, data)
    _warn_of_small_images(data, fit.preprocess)
    best = _BestEpoch(folder / f"checkpoint_{config.model}.pth", config)
    started = time.monotonic()
    _run_lightning(fit, best, config, data, folder, resumed is not None, progress)
    summary = _finish(fit, best, config, data, time.monotonic() - started)
    _write_json(folder / "summary.json", summary)
    return Run(folder, best.path, summary)


class _Fit(pl.LightningModule):
    """The loop's parts: loss, validation scores, optimiser and schedule of the configuration."""

    def __init__(self, network: nn.Module, preprocess: Preprocess, config: TrainConfig, data: DataFolder) -> None:
        super().__init__()
        # Channels last: half the time per step of ASRNet on a CPU, and what tensor cores want.
        self.network = network.to(memory_format=torch.channels_last)
        self.preprocess, self.config, self.data = preprocess, config, data
        self.unreadable: dict[str, str] = {}
        self.scores = MetricCollection({"acc": BinaryAccuracy(), "auroc": BinaryAUROC(), "f1": BinaryF1Score()})

    def forward(self, frames: Tensor) -> Tensor:
        """(B, S, S, 3) in [0, 255] -> logits (B, 2)."""
        x = self.preprocess.normalise(frames).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        self._note_unreadable(batch, "train")
        if not len(batch.labels):
            return None
        logits = self(batch.frames)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
        correct = (logits.argmax(1) == batch.labels).float().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.labels))
        self.log("train/acc", correct, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        self.log("lr", self.optimizers().param_groups[0]["lr"], on_step=False, on_epoch=True, batch_size=1)  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self._note_unreadable(batch, "val")
        if not len(batch.labels):
            return
        logits = self(batch.frames).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch.labels))
        self.scores.update(logits.softmax(1)[:, 1], batch.labels)

    def on_validation_epoch_end(self) -> None:
        with warnings.catch_warnings():
            # A validation split of one class has no AUROC; torchmetrics says so and gives 0.
            warnings.filterwarnings("ignore", message="No (negative|positive) samples in targets")
            self.log_dict({f"val/{name}": value for name, value in self.scores.compute().items()})
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        if config.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss"}}
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = min(config.warmup_epochs / config.epochs, 0.2) * steps
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _warmup_cosine(step, steps, warmup, config.final_lr)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def _note_unreadable(self, batch: Batch, split: str) -> None:
        for index, problem in batch.problems:
            path = str(self.data.split(split)[index].path)
            if path not in self.unreadable:
                self.unreadable[path] = problem
                log.warning("skipped: %s", problem)


def _warmup_cosine(step: int, steps: int, warmup: float, final: float) -> float:
    """Share of the learning rate: linear from 0 over `warmup` steps, then a cosine down to `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


class _BestEpoch(Callback):
    """Writes the checkpoint whenever validation is better than ever, so that an aborted run has one too."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path, self.config = path, config
        self.score, self.epoch = -math.inf, -1
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.epoch, self.history = state_dict["score"], state_dict["epoch"], state_dict["history"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seen = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.history.append({"epoch": trainer.current_epoch + 1, **seen})
        shown = "  ".join(f"{k} {seen[k]:.4f}" for k in ("train/loss", "val/loss", "val/acc", "val/auroc") if k in seen)
        log.info("epoch %d/%d  %s", trainer.current_epoch + 1, self.config.epochs, shown)
        score = seen[f"val/{self.config.monitor}"] * (-1 if self.config.monitor == "loss" else 1)
        if score <= self.score:
            return
        self.score, self.epoch = score, trainer.current_epoch + 1
        assert isinstance(module, _Fit)
        config = self.config
        save_checkpoint(self.path, Checkpoint(config.model, config.options, config.preprocess, module.network))


def _run_lightning(
    fit: _Fit,
    best: _BestEpoch,
    config: TrainConfig,
    data: DataFolder,
    folder: Path,
    resumed: bool,
    progress: bool,
) -> None:
    callbacks: list[Callback] = [
        best,
        ModelCheckpoint(dirpath=folder, filename=_RESUME.removesuffix(".ckpt"), enable_version_counter=False),
    ]
    if config.patience is not None:
        mode = "min" if config.monitor == "loss" else "max"
        callbacks.append(
            EarlyStopping(f"val/{config.monitor}", config.min_delta, config.patience, mode=mode, verbose=False)
        )
    if progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # Lightning against newer torch
        warnings.filterwarnings("ignore", message=".*`training_step` returned `None`.*")
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=config.epochs,
            accelerator="auto",
            devices=1,
            precision=_precision(config),
            gradient_clip_val=config.clip or None,
            logger=TensorBoardLogger(folder, name="", version=""),
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        loaders = _train_loader(fit, config, data), _val_loader(fit, config, data)
        try:
            trainer.fit(fit, *loaders, ckpt_path=folder / _RESUME if resumed else None, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if (folder / _RESUME).is_file():
                log.warning("stopped; go on with asr-train --resume %s", folder)
            raise SystemExit(130) from None


def _train_loader(fit: _Fit, config: TrainConfig, data: DataFolder) -> DataLoader[Any]:
    images = TrainingImages(data.train, fit.preprocess, config.augment)
    sampler = BalancedSampler(data.train, config.balance, config.epoch_size or len(data.train), config.seed)
    return DataLoader(
        images,
        batch_size=config.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        drop_last=len(sampler) > config.batch_size,  # a last batch of one image has no batch statistics
    )


def _val_loader(fit: _Fit, config: TrainConfig, data: DataFolder) -> DataLoader[Any]:
    images = EvaluationImages(data.val, fit.preprocess, config.quality)
    return DataLoader(images, batch_size=config.batch_size, collate_fn=collate, num_workers=config.workers)


def _precision(config: TrainConfig) -> Any:
    if config.amp == "auto":
        return "16-mixed" if torch.cuda.is_available() else "32-true"
    if config.amp == "off":
        return "32-true"
    return "16-mixed" if torch.cuda.is_available() else "bf16-mixed"


def _finish(fit: _Fit, best: _BestEpoch, config: TrainConfig, data: DataFolder, seconds: float) -> dict[str, Any]:
    """Calibrate the best epoch on the validation split and write it again with all its facts."""
    checkpoint = load_checkpoint(best.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scored = score_checkpoint(checkpoint, data.val, config.quality, config.batch_size, config.workers, device)
    equalised = f", every image re-encoded at JPEG {config.quality}" if config.quality else ""
    fitted_on = f"the validation split of {data.root.name} ({len(scored.labels)} images{equalised})"
    if len(scored.labels) == 0:
        raise DatasetError(f"{data.root}: no validation image could be read")
    fitted = calibrate(scored.labels, scored.margins, fitted_on)
    summary = {
        "model": config.model,
        "best_epoch": best.epoch,
        "epochs": len(best.history),
        f"val_{config.monitor}": best.score if config.monitor != "loss" else -best.score,
        "seed": config.seed,
        "minutes": round(seconds / 60, 1),
        "parameters": sum(p.numel() for p in fit.network.parameters()),
        "config": config.published(),
        "data": data.summary(),
        "left_out": list(config.leave_out),
        "unreadable": sorted(Path(path).name for path in fit.unreadable),
    }
    summary = json.loads(json.dumps(summary))
    save_checkpoint(
        best.path,
        Checkpoint(
            config.model,
            config.options,
            config.preprocess,
            checkpoint.network,
            calibration=_plain(fitted.calibration),
            decision=_plain(fitted.decision),
            operating_points=tuple(_plain(p) for p in fitted.operating_points),
            training=summary,
        ),
    )
    return {**summary, "history": best.history, "calibration": _plain(fitted.calibration)}


def _plain(fact: Any) -> dict[str, Any]:
    return dict(vars(fact))


def _warn_of_small_images(data: DataFolder, preprocess: Preprocess) -> None:
    """Say when a crop is mostly mirrored continuation: it costs time and shows the network nothing."""
    sides = []
    for sample in data.train[:: max(1, len(data.train) // 20)]:
        with contextlib.suppress(InputError):
            sides.append(min(read_image(sample.path).shape[:2]))
    typical = int(np.median(sides)) if sides else preprocess.size
    if preprocess.mode == "crop" and typical <= preprocess.size // 2:
        log.warning(
            "images are about %d px, the crop is %d px: they are continued by mirroring; --crop-size %d fits them",
            typical,
            preprocess.size,
            typical,
        )


def _check_same_data(folder: Path, data: DataFolder) -> None:
    before = json.loads((folder / "data.json").read_text())
    if before["fingerprint"] != data.summary()["fingerprint"]:
        raise DatasetError(f"{data.root}: has changed since {folder} was begun; start a new run")


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
        "packages": {name: metadata.version(name) for name in packages},
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
