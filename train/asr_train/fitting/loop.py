"""The training loop: what Lightning is given, and what it writes after every epoch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score

from asr_models import Checkpoint, InputTransform, save_checkpoint
from asr_runtime.errors import ConfigurationError, DatasetError, InputError, SourceError
from asr_runtime.machine import has_bf16
from asr_runtime.whole_file import whole_file
from asr_train.data.batches import Batch, EvaluationImages, RankBatches, TrainingImages, collate
from asr_train.data.layouts import DataFolder
from asr_train.data.shard_order import training_draws
from asr_train.fitting.config import LoopConfig
from asr_train.fitting.rank_norm import synchronised
from asr_train.fitting.ranks import ALONE, Ranks

__all__ = ["RESUME", "BestEpoch", "DetectorModule", "epochs_done", "run_loop"]

log = logging.getLogger("asr_train")
RESUME = "resume.ckpt"
"""Lightning's checkpoint in a run folder, written after every epoch."""
_UNREAD = 50  # batches in a row without a picture: the store has gone


class DetectorModule(pl.LightningModule):
    """The loop's parts: loss, validation scores, optimiser and schedule of the configuration.

    Several ranks compute what one process computes with the batch of all of them: statistics of batch normalisation,
    the mean loss and validation scores are those of all pictures together.
    """

    def __init__(
        self, network: nn.Module, preprocess: InputTransform, config: LoopConfig, data: DataFolder, ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.ranks = ranks
        if ranks.size > 1:
            network = synchronised(network)
        # Channels last: the faster layout for these convolutions, on CPUs too.
        self.network = network.to(memory_format=torch.channels_last)
        self.preprocess, self.config, self.data = preprocess, config, data
        self.unreadable: dict[str, str] = {}
        self._unread = 0
        # Gathered before they are computed.
        scores = BinaryAccuracy, BinaryAUROC, BinaryF1Score
        self.scores = MetricCollection(
            dict(zip(("acc", "auroc", "f1"), (score(sync_on_compute=False) for score in scores), strict=True))
        )
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []  # validation: index, logits, label

    def forward(self, frames: Tensor) -> Tensor:
        """(B, S, S, 3) in [0, 255] -> logits (B, 2)."""
        x = self.preprocess.normalise(frames).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        """Return the cross entropy of one batch; None if none of its files could be read."""
        self._note_unreadable(batch, "train")
        count = len(batch.labels)
        total = float(self.ranks.total(torch.tensor(float(count))))
        if not total:
            return None
        # No rank may stay away from what all compute together: one without pictures runs a black one that counts 0.
        frames = batch.frames if count else batch.frames.new_zeros(1, self.preprocess.size, self.preprocess.size, 3)
        labels = batch.labels if count else batch.labels.new_zeros(1)
        logits = self(frames)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        correct = (logits.argmax(1) == labels).float().mean()
        shared = {"on_step": False, "on_epoch": True, "batch_size": count, "sync_dist": self.ranks.size > 1}
        self.log("train/loss", loss, prog_bar=True, **shared)  # type: ignore[arg-type]
        self.log("train/acc", correct, **shared)  # type: ignore[arg-type]
        self.log("lr", self.optimizers().param_groups[0]["lr"], on_step=False, on_epoch=True, batch_size=1)  # type: ignore[union-attr]
        # Gradients are averaged over ranks, which may have read differently many pictures.
        return loss * (count * self.ranks.size / total)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Take one batch into the validation scores."""
        self._note_unreadable(batch, "val")
        if len(batch.labels):
            self._seen.append((batch.indices, self(batch.frames).float(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores of the epoch, of the pictures of all ranks in their order."""
        own = [torch.cat(part).cpu().numpy() for part in zip(*self._seen, strict=True)]
        self._seen.clear()
        parts = [part for part in self.ranks.gather(own) if part]
        if not parts:
            raise DatasetError(f"{self.data.root}: no validation image could be read")
        indices, logits, labels = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        order = indices.argsort()
        logits, labels = logits[order].to(self.device), labels[order].to(self.device)
        if not torch.isfinite(logits).all():
            raise ConfigurationError(
                f"training diverged in epoch {self.current_epoch + 1}: the network gives NaN or infinity; "
                f"lower --lr ({self.config.lr:g}) or --clip ({self.config.clip:g})"
            )
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        self.log("val/loss", loss, prog_bar=True)
        self.scores.update(logits.softmax(1)[:, 1], labels)
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
            try:
                path = str(self.data.split(split)[index].path)
            except InputError:  # its row of an index is damaged
                path = f"{split} image {index}"
            if path not in self.unreadable:
                if problem not in self.unreadable.values():  # all pictures of a missing shard have the same one
                    log.warning("skipped: %s", problem)
                self.unreadable[path] = problem
        self._unread = 0 if len(batch.labels) else self._unread + 1
        if self._unread == _UNREAD and batch.problems:
            raise SourceError(
                f"{_UNREAD} batches in a row could not be read (last: {batch.problems[-1][1]}); when they can be read "
                "again, go on with --resume"
            )


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
        if not trainer.is_global_zero:
            return
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


class _Position(Callback):
    """Remembers how many batches of an epoch are done, so that a resumed epoch goes on behind them."""

    def __init__(self, batches: RankBatches) -> None:
        self.batches, self.done = batches, 0

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches.skipped = state_dict["done"]

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        self.done = rest[-1] + 1

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.done = 0  # validation ends an epoch


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
    loggers: Sequence[Logger] = (),
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
        loggers: of Lightning, that get the metrics of every epoch.
    """
    train_loader, val_loader = _train_loader(fit, config, data), _val_loader(fit, config, data)
    where: dict[str, Any] = {
        "dirpath": folder,
        "filename": RESUME.removesuffix(".ckpt"),
        "enable_version_counter": False,
    }
    assert isinstance(train_loader.batch_sampler, RankBatches)
    callbacks = [
        *callbacks,
        best,
        _Position(train_loader.batch_sampler),
        _StopAfterBatch(check_stop),
        ModelCheckpoint(**where),
    ]
    if config.save_every is not None:
        callbacks.append(ModelCheckpoint(**where, every_n_train_steps=config.save_every))
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
        warnings.filterwarnings("ignore", message=".*It is recommended to use .*sync_dist=True.*")  # equal everywhere
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*is deprecated.*")  # what replaces it is new
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # RankBatches is
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=config.epochs,
            accelerator="auto",
            devices=fit.ranks.size // fit.ranks.nodes,
            num_nodes=fit.ranks.nodes,
            strategy=_strategy(fit.ranks),
            plugins=[TorchElasticEnvironment()] if fit.ranks.size > 1 else None,
            accumulate_grad_batches=config.accumulate,
            precision=_precision(config),
            gradient_clip_val=config.clip or None,
            logger=list(loggers) or False,
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(fit, train_loader, val_loader, ckpt_path=folder / RESUME if resumed else None, weights_only=True)


def _train_loader(fit: DetectorModule, config: LoopConfig, data: DataFolder) -> DataLoader[Any]:
    images = TrainingImages(data.train, fit.preprocess, config.augment)
    draws = training_draws(data.train, config.balance, config.epoch_size or len(data.train), config.seed)
    size, ranks = config.batch_size // config.accumulate, fit.ranks
    if size < ranks.size:
        raise ConfigurationError(
            f"batch_size {config.batch_size}: expected at least one image for each of {ranks.size} processes"
        )
    return DataLoader(
        images,
        batch_sampler=RankBatches(draws, size, ranks.rank, ranks.size),
        collate_fn=collate,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )


def _val_loader(fit: DetectorModule, config: LoopConfig, data: DataFolder) -> DataLoader[Any]:
    """Deal whole batches to the ranks: a picture stands in the same batch, whatever their number."""
    images = EvaluationImages(data.val, fit.preprocess, config.quality)
    starts = fit.ranks.share(range(0, len(images), config.batch_size))
    batches = [range(start, min(start + config.batch_size, len(images))) for start in starts] or [range(0)]
    return DataLoader(images, batch_sampler=batches, collate_fn=collate, num_workers=config.workers)  # type: ignore[arg-type]


def _strategy(ranks: Ranks) -> Strategy | str:
    # Buffers are equal on all ranks: batch normalisation is synchronised. So ranks may validate differently often.
    return DDPStrategy(broadcast_buffers=False) if ranks.size > 1 else "auto"


def _precision(config: LoopConfig) -> Any:
    """Return Lightning's name of the precision; 16 bits unasked only where the device computes in them itself."""
    if config.amp == "off":
        return "32-true"
    if config.amp == "bf16":
        return "bf16-mixed"
    if torch.cuda.is_available():
        return "16-mixed"
    return "bf16-mixed" if config.amp == "on" or has_bf16() else "32-true"
