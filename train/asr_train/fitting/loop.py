"""The training loop: what Lightning is given, and what it writes after every epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.utils.data import DataLoader

from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import has_bf16
from asr_train.data.batches import EvaluationImages, RankBatches, TrainingImages, collate, prepare_worker
from asr_train.data.draws import training_draws
from asr_train.data.layouts import DataFolder
from asr_train.fitting.config import LoopConfig
from asr_train.fitting.detector_module import DetectorModule
from asr_train.fitting.loop_callbacks import BestEpoch, Position, StopAfterBatch
from asr_train.fitting.ranks import Ranks
from asr_train.fitting.run_folder import RESUME

__all__ = ["run_loop"]


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
        Position(train_loader.batch_sampler),
        StopAfterBatch(check_stop),
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
        worker_init_fn=prepare_worker,
        persistent_workers=config.workers > 0,
    )


def _val_loader(fit: DetectorModule, config: LoopConfig, data: DataFolder) -> DataLoader[Any]:
    """Deal whole batches to the ranks: a picture stands in the same batch, whatever their number."""
    images = EvaluationImages(data.val, fit.preprocess, config.quality)
    starts = fit.ranks.share(range(0, len(images), config.batch_size))
    batches = [range(start, min(start + config.batch_size, len(images))) for start in starts] or [range(0)]
    return DataLoader(
        images,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=config.workers,
        worker_init_fn=prepare_worker,
    )


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
