"""Do thresholds keep their promise on new photos of the same source?  Trains on one half, judges the other, both ways.

    python -m asr_bench.promise --data dataset

The pictures of a data folder are laid out as CIFAKE is published: `train/{real,fake}`, so that each class is a single
source and thresholds come from pictures of that source which the head has not seen. Near duplicates stay in one half.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from asr_runtime.command import FOLDER, command, require_extra

require_extra("train", "torch", "lightning", "sklearn", "scipy", "imagehash", "av")

from scipy.stats import betabinom, binomtest  # noqa: E402 - needs the extra

from asr_models import ModelsError, default_preprocess, load_checkpoint  # noqa: E402
from asr_runtime.contract import Decision, OperatingPoint, from_checkpoint  # noqa: E402
from asr_runtime.errors import DatasetError  # noqa: E402
from asr_train.data.layouts import DataFolder, Sample, find_data  # noqa: E402
from asr_train.data.near_duplicates import near_duplicate_groups  # noqa: E402
from asr_train.figures.scoring import score_checkpoint  # noqa: E402
from asr_train.fitting.config import ClosedFormConfig, recipe  # noqa: E402
from asr_train.fitting.fit import train  # noqa: E402

__all__ = ["Promise", "lay_out", "promises", "promises_table"]

_COVERAGE = 0.95
_CLASSES = ("real", "fake")


@dataclass(frozen=True)
class Promise:
    """What became of one promise on photos that neither the head nor the thresholds have seen.

    Attributes:
        name: of the threshold.
        rate: false-positive rate that the card promises.
        called: photos that reach the threshold.
        photos: photos judged.
        fitted_on: photos that the threshold was placed by.
        detected: share of generated pictures that reach the threshold.
    """

    name: str
    rate: float
    called: int
    photos: int
    fitted_on: int
    detected: float

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95% interval of the measured rate."""
        ends = binomtest(self.called, self.photos).proportion_ci(_COVERAGE)
        return float(ends.low), float(ends.high)

    @property
    def expected(self) -> tuple[int, int]:
        """How many photos are called ai in 95% of all such halves, if the promise is true.

        Threshold and measurement are both samples: of n photos that the threshold is placed by, k lie above it.
        """
        k = int(self.rate * self.fitted_on + 1e-9)
        low, high = betabinom(self.photos, k + 1, self.fitted_on - k).ppf([(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
        return int(low), int(high)

    @property
    def is_kept(self) -> bool:
        """No more photos are called ai than the promise makes likely."""
        return self.called <= self.expected[1]


def lay_out(data: DataFolder, folder: Path, images: int, seed: int = 0) -> list[Path]:
    """Link pictures into two data folders: what one trains on, the other judges.

    Args:
        data: any layout; training and validation split together.
        folder: of the two, `first` and `second`.
        images: largest number per class, drawn at random, and divided into two halves.
        seed: of the drawing.

    Raises:
        DatasetError: fewer than four pictures of a class that are no near duplicates.
    """
    rng = np.random.default_rng(seed)
    roots = [folder / "first", folder / "second"]
    for label, name in enumerate(_CLASSES):
        own = [sample for sample in (*data.train, *data.val) if sample.label == label]
        numbers = {sample.path: number for number, sample in enumerate(own)}
        drawn = [own[i] for i in rng.permutation(len(own))[:images].tolist()]
        halves = _halves(drawn)
        if min(map(len, halves)) < 2:
            raise DatasetError(f"{data.root}: expected four distinct pictures or more of the class {name}")
        for root, (trained, judged) in zip(roots, (halves, halves[::-1]), strict=True):
            for split, part in (("train", trained), ("test", judged)):
                (root / split / name).mkdir(parents=True)
                for sample in part:
                    link = root / split / name / f"{numbers[sample.path]:06}{sample.path.suffix}"
                    link.symlink_to(sample.path.resolve())
    return roots


def _halves(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Part pictures in two, near duplicates together: the next group goes to the smaller half."""
    groups = near_duplicate_groups(samples)
    halves: list[list[Sample]] = [[], []]
    for group in dict.fromkeys(groups.tolist()):
        min(halves, key=len).extend(samples[i] for i in np.flatnonzero(groups == group).tolist())
    return halves


def promises(config: ClosedFormConfig, runs: Path) -> list[Promise]:
    """Train on a folder's training split, judge its test split by the thresholds of the card.

    Args:
        config: its data folder is one of `lay_out`'s.
        runs: folder of runs.
    """
    loaded = load_checkpoint(train(config, runs).checkpoint)
    data = find_data(config.data)
    scored = score_checkpoint(loaded, data.test, config.quality, config.batch_size, config.workers)
    real, fake = (scored.probability[scored.labels == label] for label in (0, 1))
    points = [from_checkpoint(OperatingPoint, point, loaded.name) for point in loaded.operating_points]
    decision = from_checkpoint(Decision, loaded.decision, loaded.name)
    trained = sum(sample.label == 0 for sample in data.train)

    def measured(name: str, rate: float, threshold: float) -> Promise:
        return Promise(name, rate, _reach(real, threshold), len(real), trained, _reach(fake, threshold) / len(fake))

    of_points = [measured("operating point", point.false_positive_rate, point.threshold) for point in points]
    return [*of_points, measured("verdict ai", points[-1].false_positive_rate, decision.ai_from)]


def _reach(probability: NDArray[np.float64], threshold: float) -> int:
    return int((probability >= threshold).sum())


def promises_table(halves: Sequence[Sequence[Promise]]) -> str:
    """Return a Markdown table: a line for each promise of each training."""
    lines = [
        "| trained on | threshold | promised | photos called ai | rate (95% interval) | expected of the promise | "
        "generated called ai |",
        "|---|---|---|---|---|---|---|",
    ]
    for half, those in zip(("first half", "second half"), halves, strict=True):
        for one in those:
            (low, high), (least, most) = one.interval, one.expected
            lines.append(
                f"| {half} | {one.name} | {one.rate:.0%} | {one.called} of {one.photos} | "
                f"{one.called / one.photos:.1%} ({low:.1%} to {high:.1%}) | {least} to {most} | {one.detected:.0%} |"
            )
    return "\n".join(lines) + "\n"


@command("python -m asr_bench.promise", refusals=(ModelsError,))
@click.option("--data", type=FOLDER, default="dataset", help="Data folder.")
@click.option("--images", type=click.IntRange(min=4), default=1000, show_default=True, help="Of each class.")
@click.option("--crop-size", type=click.IntRange(min=16), default=160, show_default=True)
@click.option("--views", type=click.IntRange(min=1), default=1, show_default=True, help="Augmented, of each picture.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Reading processes.")
def main(data: Path, images: int, crop_size: int, views: int, seed: int, workers: int) -> None:
    """Train on one half of DATA in the published layout, judge the other half, and the other way round.

    Exit codes: 0 all promises hold; 1 a promise is broken; 2 usage or data.
    """
    halves = []
    with tempfile.TemporaryDirectory() as folder:
        for root in lay_out(find_data(data), Path(folder), images, seed):
            preprocess = {**default_preprocess("asrnet-lite"), "size": crop_size}
            config = recipe("asrnet-lite", data=str(root), preprocess=preprocess, views=views, workers=workers)
            assert isinstance(config, ClosedFormConfig)
            halves.append(promises(config, Path(folder, "runs")))
    click.echo(promises_table(halves), nl=False)
    sys.exit(0 if all(one.is_kept for those in halves for one in those) else 1)


if __name__ == "__main__":
    main()
