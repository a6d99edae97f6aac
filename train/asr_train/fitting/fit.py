"""Training: one function from a configuration to a run folder.

    asr-train --model asrnet --data DIR                        one machine, CPU or one GPU
    asr-train --model asrnet --data DIR --devices 8            one machine, 8 GPUs
    asr-train --resume runs/run-20260101-120000                goes on where it stopped, as it would have gone on

A run folder holds config.toml, environment.json, data.json, TensorBoard events, resume.ckpt (Lightning's, after every
epoch), checkpoint_<model>.pth (the best epoch, calibrated when the run ends) and summary.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn

from asr_models import (
    ASRNetLite,
    FFTResNet,
    InputTransform,
    create_model,
)
from asr_runtime.errors import ConfigurationError
from asr_train.data.layouts import DataFolder
from asr_train.fitting.closed_form import pretrained
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, TrainConfig
from asr_train.fitting.detector_module import DetectorModule
from asr_train.fitting.finish import finish_closed_form, finish_loop
from asr_train.fitting.launch import was_launched
from asr_train.fitting.loop import run_loop
from asr_train.fitting.loop_callbacks import BestEpoch
from asr_train.fitting.ranks import ALONE, Ranks, losing_ranks
from asr_train.fitting.run_folder import FACTS, Run, check_weights, how_to_go_on, prepared_folder, resumed_config
from asr_train.fitting.stopping import stop_on_signal
from asr_train.fitting.training_data import checked_data
from asr_train.tracking.tracking import Tracking, begin_mlflow, tracked

__all__ = ["resume", "train", "untrained"]


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
    config = ranks.from_first(lambda: resumed_config(folder, epochs, data))
    return _train(config, folder.parent, folder, progress, ranks, None)


def _train(
    config: TrainConfig, runs: Path, resumed: Path | None, progress: bool, ranks: Ranks, mlflow: str | None
) -> Run:
    data = ranks.from_first(lambda: checked_data(config))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.threads:
        torch.set_num_threads(config.threads)
    network: nn.Module = ranks.from_first(lambda: _network(config, resumed is not None))
    if resumed is not None:
        ranks.from_first(lambda: check_weights(resumed, network))
    folder = ranks.from_first(lambda: prepared_folder(config, data, runs, resumed))
    if mlflow is not None:
        ranks.from_first(lambda: begin_mlflow(folder, mlflow))
    with tracked(folder, ranks.is_first) as tracking:
        if ranks.is_first:
            transform = InputTransform(**config.preprocess)
            tracking.begin(config.published(), data.train, transform, config.augment, config.seed)
        run = _fitted(network, config, data, folder, resumed is not None, progress, ranks, tracking)
        if ranks.is_first:
            tracking.end(run.summary, [run.checkpoint, *(folder / name for name in FACTS)])
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
            return finish_closed_form(network, config, data, folder, ranks)
    assert isinstance(config, LoopConfig)
    fit = DetectorModule(network, InputTransform(**config.preprocess), config, data, ranks)
    best = BestEpoch(folder / f"checkpoint_{config.model}.pth", config)
    started = time.monotonic()
    go_on = partial(how_to_go_on, folder)
    with losing_ranks(ranks, go_on), stop_on_signal(_said_by_rank_0(go_on, ranks)) as check_stop:
        run_loop(fit, best, config, data, folder, resumed, progress, check_stop, loggers=tracking.loggers)
        unreadable = {path: why for part in ranks.gather(fit.unreadable) for path, why in part.items()}
        seconds = time.monotonic() - started
        summary = ranks.from_first(lambda: finish_loop(unreadable, best, config, data, folder, seconds))
    return Run(folder, best.path, summary)


def _said_by_rank_0(say: Callable[[], str], ranks: Ranks) -> Callable[[], str | None]:
    """A signal reaches all ranks; the process that started them speaks for them, or else rank 0."""
    return lambda: say() if ranks.is_first and not was_launched() else None


def _network(config: TrainConfig, resumed: bool) -> nn.Module:
    return pretrained(config) if isinstance(config, ClosedFormConfig) else untrained(config, resumed)


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
