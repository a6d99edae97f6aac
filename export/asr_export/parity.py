"""Measures whether the exported file computes what PyTorch computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asr_export.answers import Answers, answers, changed_verdicts, logit_errors, logit_scale, onnxruntime, pytorch
from asr_export.parity_inputs import Frames
from asr_models import Deployed
from asr_models.spectrum import FullMagnitude, HalfMagnitude
from asr_runtime import Detector
from asr_runtime.contract import ModelCard

__all__ = ["Parity", "compare", "explain", "judge", "tolerance"]


_UNIT_ROUNDOFF = {"fp32": 2.0**-24, "int8": 2.0**-9}


@dataclass(frozen=True)
class Parity:
    """Largest differences between the exported file and eager float32 PyTorch.

    Attributes:
        frames: how many were compared.
        logits_relative: largest difference of a logit on a real frame, divided by the largest logit or by 1,
            whichever is larger: a probability depends on differences of logits, so below 1 the absolute one counts.
        logits_absolute: the same, not divided.
        probability_absolute: largest difference of a probability.
        verdict_flips: real frames whose verdict differs.
        tolerance: of `logits_relative`.
        flips_allowed: of `verdict_flips`.
        awkward_relative: as `logits_relative`, on the frames that are not real. It must only be finite: a network
            that divides by the deviation of its values (LayerNorm) can turn rounding on an even frame into any number.
        explained: real frames that `logits_relative` leaves out, because the network amplifies rounding on them:
            float32 PyTorch is as far from float64 as the file is (see `explain`).
    """

    frames: int
    logits_relative: float
    logits_absolute: float
    probability_absolute: float
    verdict_flips: int
    tolerance: float
    flips_allowed: int = 0
    awkward_relative: float = 0.0
    explained: int = 0

    @property
    def passed(self) -> bool:
        """Whether the differences are within the tolerance, and no more verdicts differ than may."""
        close = self.logits_relative <= self.tolerance and math.isfinite(self.awkward_relative)
        return close and self.verdict_flips <= self.flips_allowed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "passed": self.passed, "reference": "PyTorch eager float32, CPU"}

    def __str__(self) -> str:
        return (
            f"{self.frames} frames: logits differ by {self.logits_relative:.1e} of their scale (allowed "
            f"{self.tolerance:.1e}), probabilities by {self.probability_absolute:.1e}, "
            f"verdict flips {self.verdict_flips}; awkward frames {self.awkward_relative:.1e}"
            + (f"; {self.explained} frames on which PyTorch rounds as badly are left out" if self.explained else "")
        )


def tolerance(network: nn.Module, precision: str = "fp32") -> float:
    """Allowed difference of the logits of two implementations, relative to the largest logit.

    In float32 each value of a layer is a sum of n products, and every product and addition is rounded by at most
    u = 2^-24 of it, up or down at random; so the relative error of a sum stays below 2 u sqrt(n) but for rare cases
    (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019, with
    lambda = 2), and the errors of successive layers add up in quadrature: 2 u sqrt(sum of n). Two implementations that
    add in different orders differ by no more than both together, 4 u sqrt(sum of n). A transform of sides H and W
    counts H + W. ASRNet of 64 channels: sums of 6,700 products in all, which allows 2e-5; ResNet-34 behind a 224 x 224
    spectrum: 65,000, 6e-5. What is measured is usually a third of that.

    Below float32 what counts is the rounding of every layer's output, so n is 1 for each layer, and u is 2^-9 for 8
    bits (half of one of 256 steps over the range of a tensor).

    Args:
        network: as trained.
        precision: `fp32` or `int8`.
    """
    lengths: list[int] = []
    for module in network.modules():
        weights = [w for w in module.parameters(recurse=False) if w.ndim > 1]
        lengths += [w[0].numel() for w in weights]
        if isinstance(module, HalfMagnitude | FullMagnitude):
            lengths.append(2 * 224)  # H + W; the side is not known here, and hardly matters
    products = sum(lengths) if precision == "fp32" else len(lengths)
    return 4 * _UNIT_ROUNDOFF[precision] * math.sqrt(max(products, 1))


def compare(deployed: Deployed, detector: Detector, batches: Sequence[Frames], allowed: float) -> Parity:
    """Compare an exported file in onnxruntime with eager float32 PyTorch.

    Args:
        deployed: the PyTorch twin.
        detector: the exported file.
        batches: input of both.
        allowed: tolerance of the relative difference of the logits.
    """
    candidate, reference = answers(onnxruntime(detector), batches), answers(pytorch(deployed), batches)
    return judge(
        candidate, reference, detector.card, allowed, explain(candidate, reference, deployed, batches, allowed)
    )


def explain(
    candidate: Answers, reference: Answers, deployed: Deployed, batches: Iterable[Frames], allowed: float
) -> frozenset[str]:
    """Name the real frames beyond the tolerance on which it is the network that amplifies rounding.

    The tolerance holds for sums that do not cancel. LayerNorm on an even part of a picture divides by hardly anything,
    and then float32 PyTorch is itself far from what it would compute without rounding. Such a frame is computed in
    float64, and explained if the file is within the tolerance of that, or at most twice as far from it as PyTorch.

    Args:
        candidate: of the file.
        reference: of eager float32 PyTorch, on the same frames.
        deployed: the PyTorch twin.
        batches: the frames.
        allowed: tolerance of the relative difference of the logits.

    Returns:
        Names; those that follow a frame without explanation, in order of their difference, are not looked at.
    """
    error = np.where(reference.real, logit_errors(candidate.logits, reference.logits), 0)
    limit = allowed * logit_scale(reference)
    beyond = [i for i in np.argsort(-error, kind="stable") if not error[i] <= limit]
    if not beyond:
        return frozenset()
    pictures = [frame for _, frames, _ in batches for frame in frames]
    exactly = pytorch(deployed, torch.float64)
    known: dict[tuple[tuple[int, ...], bytes], NDArray[np.float64]] = {}
    names = []
    for i in beyond:
        key = pictures[i].shape, pictures[i].tobytes()
        if key not in known:
            known[key] = exactly(pictures[i][None])[1][0]
        of_file, of_pytorch = (float(logit_errors(a.logits[i], known[key])) for a in (candidate, reference))
        if not of_file <= max(limit, 2 * of_pytorch):
            break
        names.append(candidate.names[i])
    return frozenset(names)


def judge(
    candidate: Answers, reference: Answers, card: ModelCard, allowed: float, explained: Collection[str] = ()
) -> Parity:
    """Decide whether the answers of a file are those of PyTorch.

    In float32 no verdict may differ; in a lower precision, as many as re-encoding at JPEG 96 changes, by the card.

    Args:
        candidate: of the file.
        reference: of eager float32 PyTorch.
        card: of the file.
        allowed: tolerance of the relative difference of the logits.
        explained: names of frames on which that tolerance does not hold.
    """
    error, real = logit_errors(candidate.logits, reference.logits), reference.real
    counts = real & ~np.isin(candidate.names, list(explained))
    scale = logit_scale(reference)
    measured = card.metrics.get(f"{card.precision} against fp32", {})
    share = 0.0 if card.precision == "fp32" else float(measured.get("changed_by_jpeg_96", 0.0))
    return Parity(
        frames=len(candidate.names),
        logits_relative=float(error[counts].max(initial=0.0)) / scale,
        logits_absolute=float(error[counts].max(initial=0.0)),
        probability_absolute=float(np.abs(candidate.probability - reference.probability)[real].max()),
        verdict_flips=changed_verdicts(candidate, reference, card),
        tolerance=allowed,
        flips_allowed=math.floor(share * int(reference.real.sum())),
        awkward_relative=float(error[~real].max()) / scale if not real.all() else 0.0,
        explained=int((real & ~counts).sum()),
    )
