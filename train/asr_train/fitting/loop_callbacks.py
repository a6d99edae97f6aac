"""What happens after each batch and epoch: the best checkpoint, the position in an epoch, the end when asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from asr_models import Checkpoint, save_checkpoint
from asr_runtime.whole_file import whole_file
from asr_train.data.batches import RankBatches
from asr_train.fitting.config import LoopConfig
from asr_train.fitting.detector_module import DetectorModule

__all__ = ["BestEpoch", "Position", "StopAfterBatch"]

log = logging.getLogger("asr_train")


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


class StopAfterBatch(Callback):
    """Calls `check` after every batch; it raises to end the run."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def on_train_batch_end(self, *_: Any) -> None:
        """After a training batch."""
        self.check()

    def on_validation_batch_end(self, *_: Any) -> None:
        """After a validation batch."""
        self.check()


class Position(Callback):
    """Remembers how many batches of an epoch are done, so that a resumed epoch goes on behind them."""

    def __init__(self, batches: RankBatches) -> None:
        self.batches, self.done = batches, 0

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches of the epoch are done."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the epoch begin behind the batches that are done."""
        self.batches.skipped = state_dict["done"]

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        """Count the batch."""
        self.done = rest[-1] + 1

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count anew."""
        self.done = 0  # validation ends an epoch
