"""A run's parameters, metrics and pictures: always in TensorBoard's files in its folder, and in MLflow where asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.whole_file import write_whole
from asr_train.data.augment import Augment
from asr_train.data.batches import TrainingImages
from asr_train.data.json_file import read_json
from asr_train.data.layouts import Sample

if TYPE_CHECKING:
    from asr_train.tracking.mlflow_run import MlflowRun

__all__ = ["MLFLOW_FILE", "Tracking", "begin_mlflow", "contact_sheet", "tracked"]

_COLUMNS = 8
MLFLOW_FILE = "mlflow.json"
"""In a run folder: where its MLflow run is."""


class Tracking:
    """Loggers of a run.

    Args:
        folder: the run folder.
        mlflow: its MLflow run; None: TensorBoard only.
    """

    def __init__(self, folder: Path, mlflow: MlflowRun | None) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.tensorboard = TensorBoardLogger(folder, name="", version="")

    @property
    def loggers(self) -> list[Logger]:
        """What Lightning's trainer logs to."""
        return [self.tensorboard, *([self.mlflow] if self.mlflow else [])]

    def begin(
        self,
        parameters: Mapping[str, Any],
        samples: Sequence[Sample],
        preprocess: InputTransform,
        augment: Augment,
        seed: int,
    ) -> None:
        """Log the configuration (TensorBoard shows it as text), and `training.png`: what training sees.

        Args:
            parameters: of the run, nested tables included.
            samples: the training split.
            preprocess: of the network.
            augment: of the run.
            seed: of the run.
        """
        rows = "\n".join(f"    {name} = {value}" for name, value in parameters.items())
        self.tensorboard.experiment.add_text("configuration", rows)
        if self.mlflow:
            self.mlflow.log_hyperparams(dict(parameters))
        sheet = contact_sheet(samples, preprocess, augment, seed)
        if sheet is None:
            return
        path = self.folder / "training.png"
        write_whole(path, cv2.imencode(".png", sheet)[1].tobytes())
        self.tensorboard.experiment.add_image("training", np.ascontiguousarray(sheet[..., ::-1]), 0, dataformats="HWC")
        if self.mlflow:
            self.mlflow.log_file(path, "pictures")

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log what of a summary are numbers; files become artefacts of the MLflow run."""
        numbers = {k: float(v) for k, v in summary.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        for logger in self.loggers:
            logger.log_metrics(numbers, 0)
        if self.mlflow:
            for path in files:
                self.mlflow.log_file(path)


def begin_mlflow(folder: Path, address: str) -> None:
    """Make the MLflow run of a run folder, which `tracked` then goes on with.

    Raises:
        ConfigurationError: MLflow cannot be used at that address.
        DependencyError: the extra is not installed.
    """
    from asr_train.tracking.mlflow_run import MlflowRun

    MlflowRun(folder, address)


@contextlib.contextmanager
def tracked(folder: Path, is_first: bool = True) -> Iterator[Tracking]:
    """Open the loggers of a run; close them with how it ended.

    Args:
        folder: the run folder; if it has an MLflow run, that is one of the loggers.
        is_first: whether this process logs, of several that train together.

    Raises:
        ConfigurationError: the MLflow run cannot be reached.
    """
    run = None
    if is_first and (folder / MLFLOW_FILE).is_file():
        from asr_train.tracking.mlflow_run import MlflowRun

        run = MlflowRun(folder, str(read_json(folder / MLFLOW_FILE).get("tracking_uri")))
    tracking = Tracking(folder, run)
    status = "failed"
    try:
        yield tracking
        status = "success"
    finally:
        for logger in tracking.loggers:
            logger.finalize(status)


def contact_sheet(
    samples: Sequence[Sample], preprocess: InputTransform, augment: Augment, seed: int
) -> NDArray[np.uint8] | None:
    """Show what training sees: a row of augmented crops of photos, and one of generated images.

    Args:
        samples: the training split.
        preprocess: of the network.
        augment: of the run.
        seed: of the drawing.

    Returns:
        uint8 (2 S, 8 S, 3), BGR, black where there are fewer images or one cannot be read; None if none can be read.
    """
    images = TrainingImages(samples, preprocess, augment)
    side = preprocess.size
    sheet = np.zeros((2 * side, _COLUMNS * side, 3), np.uint8)
    shown = 0
    for label in (0, 1):
        places = [place for place, sample in enumerate(samples) if sample.label == label]
        chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(_COLUMNS, len(places))).astype(int)]
        for column, place in enumerate(chosen):
            frame = images[place, seed].frame
            if frame is not None:
                top, left = label * side, column * side
                sheet[top : top + side, left : left + side] = frame.numpy().clip(0, 255).round()
                shown += 1
    return sheet if shown else None
