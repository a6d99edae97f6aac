"""The training loop: what Lightning is given, and what it writes after every epoch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score

from asr_models import Checkpoint, InputTransform, save_checkpoint
from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import whole_file
from asr_train.data.batches import BalancedSampler, Batch, EvaluationImages, TrainingImages, collate
from asr_train.data.layouts import DataFolder
from asr_train.fitting.config import LoopConfig

__all__ = ["RESUME", "BestEpoch", "DetectorModule", "epochs_done", "run_loop"]

log = logging.getLogger("asr_train")
RESUME = "resume.ckpt"
"""Lightning's checkpoint in a run folder, written after every epoch."""


class DetectorModule(pl.LightningModule):
    """The loop's parts: loss, validation scores, optimiser and schedule of the configuration."""

    def __init__(self, network: nn.Module, preprocess: InputTransform, config: LoopConfig, data: DataFolder) -> None:
        super().__init__()
        # Channels last: the faster layout for these convolutions, on CPUs too.
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
        """Return the cross entropy of one batch; None if none of its files could be read."""
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
        """Take one batch into the validation scores."""
        self._note_unreadable(batch, "val")
        if not len(batch.labels):
            return
        logits = self(batch.frames).float()
        if not torch.isfinite(logits).all():
            raise ConfigurationError(
                f"training diverged in epoch {self.current_epoch + 1}: the network gives NaN or infinity; "
                f"lower --lr ({self.config.lr:g}) or --clip ({self.config.clip:g})"
            )
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch.labels))
        self.scores.update(logits.softmax(1)[:, 1], batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores of the epoch."""
        with warnings.catch_warnings():
            # A validation split of one class has no AUROC; torchmetrics says so and gives 0.
            warnings.filterwarnings("ignore", message="No (negative|positive) samples in targets")
            self.log_dict({f"val/{name}": value for name, value in self.scores.compute().items()})
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        """AdamW on what is not frozen, with the schedule of the configuration."""
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


class BestEpoch(Callback):
    """Writes the checkpoint whenever validation is better than ever, so that an aborted run has one too."""

    def __init__(self, path: Path, config: LoopConfig) -> None:
        self.path, self.config = path, config
        self.score, self.epoch = -math.inf, -1
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"score": self.score, "epoch": self.epoch, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the interrupted run knew."""
        self.score, self.epoch, self.history = state_dict["score"], state_dict["epoch"], state_dict["history"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the epoch; write the checkpoint if it is the best one."""
        seen = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.history.append({"epoch": trainer.current_epoch + 1, **seen})
        shown = "  ".join(f"{k} {seen[k]:.4f}" for k in ("train/loss", "val/loss", "val/acc", "val/auroc") if k in seen)
        log.info("epoch %d/%d  %s", trainer.current_epoch + 1, self.config.epochs, shown)
        score = seen[f"val/{self.config.monitor}"] * (-1 if self.config.monitor == "loss" else 1)
        if score <= self.score:
            return
        self.score, self.epoch = score, trainer.current_epoch + 1
        assert isinstance(module, DetectorModule)
        config = self.config
        with whole_file(self.path) as part:
            save_checkpoint(part, Checkpoint(config.model, config.options, config.preprocess, module.network))


class _StopAfterBatch(Callback):
    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def on_train_batch_end(self, *_: Any) -> None:
        self.check()

    def on_validation_batch_end(self, *_: Any) -> None:
        self.check()


def epochs_done(folder: Path) -> int:
    """Return how many epochs of a run are finished.

    Raises:
        ConfigurationError: its `RESUME` is damaged.
    """
    try:
        content = torch.load(folder / RESUME, map_location="cpu", weights_only=True)
        return int(content["epoch"]) + 1
    except Exception as error:  # whatever damaged bytes lead to
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"{folder / RESUME}: damaged ({why}); start a new run") from None


def run_loop(
    fit: DetectorModule,
    best: BestEpoch,
    config: LoopConfig,
    data: DataFolder,
    folder: Path,
    resumed: bool,
    progress: bool,
    check_stop: Callable[[], None],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Fit.

    Args:
        fit: the module, whose network is trained in place.
        best: keeps the best epoch.
        config: of the run.
        data: its data folder.
        folder: the run folder.
        resumed: go on from the folder's `RESUME`.
        progress: show a progress bar on stderr.
        check_stop: called after every batch; raises to end the run.
        callbacks: of Lightning, that the trainer calls as well.
    """
    callbacks = [
        *callbacks,
        best,
        _StopAfterBatch(check_stop),
        ModelCheckpoint(dirpath=folder, filename=RESUME.removesuffix(".ckpt"), enable_version_counter=False),
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
        trainer.fit(fit, *loaders, ckpt_path=folder / RESUME if resumed else None, weights_only=True)


def _train_loader(fit: DetectorModule, config: LoopConfig, data: DataFolder) -> DataLoader[Any]:
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


def _val_loader(fit: DetectorModule, config: LoopConfig, data: DataFolder) -> DataLoader[Any]:
    images = EvaluationImages(data.val, fit.preprocess, config.quality)
    return DataLoader(images, batch_size=config.batch_size, collate_fn=collate, num_workers=config.workers)


def _precision(config: LoopConfig) -> Any:
    if config.amp == "auto":
        return "16-mixed" if torch.cuda.is_available() else "32-true"
    if config.amp == "off":
        return "32-true"
    return "16-mixed" if torch.cuda.is_available() else "bf16-mixed"
