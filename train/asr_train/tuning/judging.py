"""What a configuration is worth on families of generators that its training has not seen, and what it costs.

In closed form each family is left out by itself. By gradient descent all families that judge are left out of one
training together, because each training costs minutes. The figure of a family is the content-adjusted AUROC of its
validation images against all validation photos.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from asr_models import Checkpoint, InputTransform, create_model
from asr_models.cost import multiply_adds
from asr_runtime.errors import ConfigurationError
from asr_train.data.families import Families
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.metrics import content_adjusted_auroc
from asr_train.figures.scoring import score_checkpoint, torch_device
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import ClosedFormConfig, LoopConfig
from asr_train.fitting.detector_module import DetectorModule
from asr_train.fitting.fit import untrained
from asr_train.fitting.loop import run_loop
from asr_train.fitting.loop_callbacks import BestEpoch
from asr_train.protocols.folds import Fold, FoldContent
from asr_train.protocols.leave_families_out import family_folds
from asr_train.tuning.shared_features import SharedFeatures

__all__ = ["After", "Judge", "cost_in_macs"]

_FEW = 8  # images of a class

After = Callable[[str, Mapping[str, float]], None]
"""Called with the name of a step (a family, an epoch) and family -> figure, as known after it; may raise."""


def cost_in_macs(config: LoopConfig | ClosedFormConfig) -> float:
    """Return the multiply-adds of the network on one crop, as `asr_models.cost.multiply_adds` counts them."""
    network = create_model(config.model, **config.options).eval()
    return multiply_adds(Checkpoint(config.model, config.options, config.preprocess, network))


class Judge:
    """Families of one data folder, and what a content-only probe makes of their images.

    Args:
        data: the pictures.
        families: of their sources.
        at_least: families with fewer validation images do not judge.
        progress: show progress bars.

    Raises:
        DatasetError: no family has so many.
    """

    def __init__(self, data: DataFolder, families: Families, at_least: int, progress: bool) -> None:
        self.data = data
        self._folds: dict[str, Fold] = {
            name: folds[0] for name, folds in family_folds("leave-one-family-out", data, families, at_least).items()
        }
        self._content = FoldContent(data, progress)

    @property
    def names(self) -> tuple[str, ...]:
        """All families that can judge."""
        return tuple(self._folds)

    def figures(
        self,
        config: LoopConfig | ClosedFormConfig,
        names: Sequence[str],
        shared: SharedFeatures | None,
        after: After = lambda step, figures: None,
    ) -> dict[str, float]:
        """Train without the families that judge.

        Args:
            config: of each training.
            names: the families.
            shared: features that trials share; for the closed form.
            after: called after every family (closed form) or epoch; what it raises ends the training.

        Returns:
            Family -> content-adjusted AUROC.

        Raises:
            ConfigurationError: training diverged, or a family cannot be compared with photos.
        """
        if isinstance(config, ClosedFormConfig):
            assert shared is not None
            return self._closed_form(config, names, shared, after)
        return self._loop(config, names, after)

    def _closed_form(
        self, config: ClosedFormConfig, names: Sequence[str], shared: SharedFeatures, after: After
    ) -> dict[str, float]:
        solved = ClosedForm(pretrained(config), config, self.data, shared.folder, store=shared(config))
        figures: dict[str, float] = {}
        for name in names:
            fold = self._folds[name]
            rows = solved.store.rows(fold.samples)
            samples = solved.store.samples(rows)
            margins = solved.store.margins(solved.head(fold.without), rows)[:, 0]
            figures[name] = self._figure(fold, samples, margins, fold.without)
            after(name, figures)
        return figures

    def _loop(self, config: LoopConfig, names: Sequence[str], after: After) -> dict[str, float]:
        without = sorted({source for name in names for source in self._folds[name].without})
        judged = list({sample.path: sample for name in names for sample in self._folds[name].samples}.values())
        # Lightning needs a validation split; what counts is scored by `_EachEpoch`.
        few = tuple(sample for label in (0, 1) for sample in [s for s in judged if s.label == label][:_FEW])
        train = tuple(sample for sample in self.data.train if sample.source not in without)
        data = dataclasses.replace(self.data, train=train, val=few)
        figures: dict[str, float] = {}

        def scored(epoch: int, samples: Sequence[Sample], margins: NDArray[np.float64]) -> None:
            of = dict(zip((s.path for s in samples), margins.tolist(), strict=True))
            for name in names:
                own = [sample for sample in self._folds[name].samples if sample.path in of]
                values = np.array([of[sample.path] for sample in own])
                figures[name] = self._figure(self._folds[name], own, values, without)
            after(f"epoch {epoch}", figures)

        pl.seed_everything(config.seed, workers=True, verbose=False)
        fit = DetectorModule(untrained(config), InputTransform(**config.preprocess), config, data)
        with tempfile.TemporaryDirectory() as folder:
            best = BestEpoch(Path(folder) / "checkpoint.pth", config)
            watch = _EachEpoch(config, judged, scored)
            run_loop(fit, best, config, data, Path(folder), False, False, lambda: None, callbacks=[watch])
        return figures

    def _figure(self, fold: Fold, samples: Sequence[Sample], margins: Any, without: Sequence[str]) -> float:
        of = dict(zip((s.path for s in fold.samples), self._content(fold, without), strict=True))
        labels = np.array([sample.label for sample in samples])
        result = content_adjusted_auroc(labels, margins, np.array([of[s.path] for s in samples]))
        if result is None:
            raise ConfigurationError(f"{fold.generator}: no images of both classes that show alike content")
        return result


class _EachEpoch(Callback):
    """Scores what judges after every epoch."""

    def __init__(
        self,
        config: LoopConfig,
        samples: Sequence[Sample],
        scored: Callable[[int, Sequence[Sample], NDArray[np.float64]], None],
    ) -> None:
        self.config, self.samples, self.scored = config, samples, scored

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DetectorModule)
        config, training = self.config, module.network.training
        checkpoint = Checkpoint(config.model, config.options, config.preprocess, module.network.eval())
        device = torch_device("auto")
        result = score_checkpoint(checkpoint, self.samples, config.quality, config.batch_size, config.workers, device)
        module.network.train(training)
        self.scored(trainer.current_epoch + 1, result.samples, result.margins)
