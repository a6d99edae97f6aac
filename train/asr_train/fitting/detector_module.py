"""What is computed on each batch: loss, validation scores, optimiser and schedule."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score

from asr_models import InputTransform
from asr_runtime.errors import ConfigurationError, DatasetError, InputError, SourceError
from asr_train.data.batches import Batch
from asr_train.data.layouts import DataFolder
from asr_train.fitting.config import LoopConfig
from asr_train.fitting.rank_norm import synchronised
from asr_train.fitting.ranks import ALONE, Ranks

__all__ = ["DetectorModule"]

log = logging.getLogger("asr_train")

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
        # Summed here: Lightning's own mean over ranks is wrong where they have read differently many pictures.
        sums = self.ranks.total(torch.stack([loss.detach(), correct]) * count) / total
        shared = {"on_step": False, "on_epoch": True, "batch_size": int(total)}
        self.log("train/loss", sums[0], prog_bar=True, **shared)  # type: ignore[arg-type]
        self.log("train/acc", sums[1], **shared)  # type: ignore[arg-type]
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
