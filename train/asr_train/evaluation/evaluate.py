"""Evaluation: figures of a data split, with subject matter held constant and files made equal."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asr_models import Checkpoint, load_checkpoint
from asr_runtime import Detector
from asr_runtime.contract import Decision, OperatingPoint, from_checkpoint, sigmoid
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_runtime.inference.looking import LookChoice, chosen_look
from asr_runtime.windows import LookKind
from asr_train.data.degradations import Degradation
from asr_train.data.families import Families, find_families
from asr_train.data.layouts import DataFolder, Sample, find_data
from asr_train.evaluation.robustness import Score
from asr_train.evaluation.robustness import robustness as measure_robustness
from asr_train.figures.content import ContentProbe, fit_content_probe, too_small
from asr_train.figures.decisions import decision_table
from asr_train.figures.metrics import binary_metrics, metrics_by_source, verdict_metrics
from asr_train.figures.pairs import pair_figures
from asr_train.figures.scoring import Scored, score_checkpoint, score_exported, torch_device

__all__ = ["Evaluation", "evaluate", "evaluate_model"]

log = logging.getLogger("asr_train")

_SHIFT_QUALITY = 96  # a re-encoding that is invisible


@dataclass(frozen=True)
class Evaluation:
    """Figures of a split, plain JSON data but for `scored`.

    Attributes:
        protocol: how the figures were made: model, data, split, re-encoding, training data of the content-only probe.
        overall: `binary_metrics` of all images.
        by_source: `metrics_by_source`, worst generator first.
        scored: the scores behind the figures.
        verdicts: `verdict_metrics` of the model's own thresholds; None if it has none.
        content_probe: `binary_metrics` of the content-only probe on the same images, `fitted_on` and `fitted_images`:
            figures of subject matter alone; `ca_auroc`: what is left of it within the bins. None without a probe.
        raw: `binary_metrics` of the files as they are, beside equalised figures; None where those are raw already.
        reencoding: `quality`, `accuracy` of all images re-encoded with it, `raw_accuracy`, their difference `shift`
            and the share of verdicts at 0.5 that `changed`; None if not asked for.
        robustness: figures under degradations, as `robustness.robustness` returns them; None if not asked for.
        pairs: `pair_figures` of content-matched pairs; None where there are none.
        decisions: look -> `decision_table` per family of generators and kind of photos, or per source where families
            are not known; None if the model has no thresholds.
    """

    protocol: Mapping[str, Any]
    overall: Mapping[str, Any]
    by_source: Mapping[str, Mapping[str, Any]]
    scored: Scored
    verdicts: Mapping[str, Any] | None = None
    content_probe: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] | None = None
    reencoding: Mapping[str, Any] | None = None
    robustness: Mapping[str, Any] | None = None
    pairs: Mapping[str, Mapping[str, Any]] | None = None
    decisions: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Judged:
    """A model that can score: `score(samples, quality, degradation)`, and what it says of itself."""

    score: Score
    decision: Decision | None
    points: tuple[OperatingPoint, ...]
    training: Mapping[str, Any]


def evaluate_model(
    model: str | None,
    checkpoint: Path | None,
    data: Path,
    layout: str | None = None,
    labels_by_position: bool = False,
    split: str | None = None,
    leave_out: Sequence[str] = (),
    equalise: int | None = 90,
    content_data: Path | None = None,
    reencoding_shift: bool = False,
    robustness: int | Literal["all"] | None = None,
    spectrum: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
    look: LookChoice = "centre",
    families: Path | None = None,
    degraded: Sequence[str] = (),
) -> Evaluation:
    """Evaluate a checkpoint, or an exported file, on a split of a data folder.

    Args:
        model: an exported file (`X.onnx`) or built-in model; beside a checkpoint, the registry name of what it holds.
        checkpoint: a checkpoint; None if `model` is exported.
        data: the data folder.
        layout: of the data folder; None finds out.
        labels_by_position: see `find_data`.
        split: `train`, `val` or `test`; None takes test if there is one, else val.
        leave_out: sources to leave out.
        equalise: JPEG quality that every image is re-encoded with first, so that file history is equal;
            the files as they are are scored as well and reported beside it. None: only those.
        content_data: data folder whose train split the content-only probe is fitted on: the one that the model was
            trained on. None: `data`. It leaves out the sources that are left out here or were left out in training.
        reencoding_shift: also measure how far accuracy moves when all files are re-encoded at JPEG 96.
        robustness: also measure under every degradation, on at most so many images of each class.
        spectrum: of a published Lightning checkpoint, which does not contain it.
        device: `auto`, `cpu` or `cuda`.
        batch_size: images per forward pass of a checkpoint; an exported file gets one at a time.
        workers: reading processes.
        look: of an exported file: `centre`, `whole` (windows all over each image), or `auto`, as its card advises. The
            decision and the operating points are those of the look.
        families: CSV file with the families of the sources, for the decision table; None: `families.csv` in or beside
            the data folder, if there is one.
        degraded: families of degradations for `robustness`; none takes all.

    Raises:
        ConfigurationError: neither or both of checkpoint and exported file; another look than the centre of a
            checkpoint, or of a file without figures for it.
        DatasetError: the data folder does not fit.
        DeviceError: CUDA was asked for and is not there.
    """
    names_a_file = model is not None and model.endswith(".onnx")
    if (checkpoint is None and model is None) or (checkpoint is not None and names_a_file):
        raise ConfigurationError("expected either --checkpoint X.pth or --model X.onnx")
    whole = find_data(data, layout, labels_by_position)
    folder = whole.without(leave_out)
    known = find_families(whole, families)
    split = split or ("test" if folder.test else "val")
    samples = folder.split(split)
    if checkpoint is None:
        detector = Detector(model, device=device)
        kind = chosen_look(detector.card, look)
        judged = _exported(detector, kind)
    else:
        if look != "centre":
            raise ConfigurationError(f"look {look}: expected an exported file, --model X.onnx; export the checkpoint")
        kind = "centre"
        loaded = load_checkpoint(checkpoint, model, {"spectrum": spectrum} if spectrum else None)
        judged = _loaded(loaded, batch_size, workers, torch_device(device))
    trained_on = find_data(content_data) if content_data is not None else whole
    probe, probe_source = _content_probe(trained_on, samples, leave_out, judged.training)
    scored = judged.score(samples, equalise, None)
    for why in scored.unreadable.values():
        log.warning("skipped: %s", why)
    if not len(scored.labels):
        raise DatasetError(f"{data}: none of the {len(samples)} images of the split {split} could be read")
    if probe is not None:
        scored = dataclasses.replace(scored, content=probe.score(scored.samples))
    raw = judged.score(samples, None, None) if equalise else scored
    protocol = {
        "model": Path(checkpoint or str(model)).name,
        "data": folder.root.name,
        "split": split,
        "re-encoding": f"every image at JPEG {equalise}" if equalise else "none, files as they are",
        "equalise": equalise,
        "look": "windows all over each image" if kind == "whole" else "the centre of each image",
        "left out": list(leave_out),
        "content held fixed": probe_source,
        "notes": list(folder.notes),
    }
    evaluation = evaluate(scored, protocol, judged.decision, judged.points, raw if equalise else None, probe, known)
    if reencoding_shift:
        evaluation = dataclasses.replace(
            evaluation, reencoding=_shift(raw, judged.score(samples, _SHIFT_QUALITY, None))
        )
    if robustness is not None:
        content = (
            None
            if scored.content is None
            else dict(zip((s.path for s in scored.samples), scored.content.tolist(), strict=True))
        )
        number = None if robustness == "all" else robustness
        curves = measure_robustness(
            judged.score,
            scored.samples,
            content,
            degraded or None,
            number,
            quality=equalise or 90,
            decision=judged.decision,
        )
        evaluation = dataclasses.replace(evaluation, robustness=curves)
    return evaluation


def evaluate(
    scored: Scored,
    protocol: Mapping[str, Any],
    decision: Decision | None = None,
    points: Sequence[OperatingPoint] = (),
    raw: Scored | None = None,
    probe: ContentProbe | None = None,
    families: Families | None = None,
) -> Evaluation:
    """Compute all figures of scored images.

    Args:
        scored: the images.
        protocol: data, split, re-encoding, model; stored beside the figures.
        decision: the model's unsure band, for `verdicts`.
        points: the model's thresholds.
        raw: the same images as they are in their files.
        probe: what gave `scored.content`.
        families: of the sources, for the decision table.
    """
    sources = [sample.source for sample in scored.samples]
    overall = binary_metrics(scored.labels, scored.probability, scored.content)
    by_source = metrics_by_source(scored.labels, scored.probability, sources, scored.content)
    unreadable = sorted(Path(path).name for path in scored.unreadable)
    verdicts = baseline = decisions = None
    if decision is not None:
        named = [s.source if families is None else families.of(s.label, s.source) for s in scored.samples]
        image_verdicts = [decision.verdict(float(p)) for p in scored.probability]
        decisions = {
            str(protocol.get("look", "the centre of each image")): decision_table(scored.labels, image_verdicts, named)
        }
        verdicts = verdict_metrics(scored.labels, scored.probability, sources, decision, points)
    if probe is not None and scored.content is not None:
        likelihood = sigmoid(scored.content)
        baseline = binary_metrics(scored.labels, likelihood, scored.content)
        baseline |= {"fitted_on": probe.fitted_on, "fitted_images": probe.images}
    return Evaluation(
        {**protocol, "unreadable": unreadable},
        overall,
        by_source,
        scored,
        verdicts,
        baseline,
        binary_metrics(raw.labels, raw.probability, scored.content) if raw is not None else None,
        pairs=pair_figures(scored.samples, scored.margins) or None,
        decisions=decisions,
    )


def _loaded(checkpoint: Checkpoint, batch_size: int, workers: int, device: str) -> _Judged:
    def score(samples: Sequence[Sample], quality: int | None, degradation: Degradation | None) -> Scored:
        return score_checkpoint(checkpoint, samples, quality, batch_size, workers, device, degradation)

    decision = from_checkpoint(Decision, checkpoint.decision, checkpoint.name) if checkpoint.decision else None
    points = tuple(from_checkpoint(OperatingPoint, point, checkpoint.name) for point in checkpoint.operating_points)
    return _Judged(score, decision, points, checkpoint.training)


def _exported(detector: Detector, look: LookKind) -> _Judged:
    def score(samples: Sequence[Sample], quality: int | None, degradation: Degradation | None) -> Scored:
        return score_exported(detector, samples, quality, degradation, look)

    card = detector.card
    rules = card.whole if look == "whole" and card.whole is not None else card
    decision = rules.decision if rules.operating_points else None
    return _Judged(score, decision, rules.operating_points, card.training)


def _content_probe(
    trained_on: DataFolder, samples: Sequence[Sample], leave_out: Sequence[str], training: Mapping[str, Any]
) -> tuple[ContentProbe | None, str]:
    """Fit the probe on what the model was trained on; where that cannot be, say why."""
    unseen = set(training.get("left_out", ()))
    left_out = unseen | set(leave_out)
    chosen = [s for s in trained_on.train if s.source not in left_out]
    name = trained_on.root.name
    if len({s.label for s in chosen}) < 2:
        return None, f"no: {name} has no train split of both classes; --content-data DIR names the training data"
    if (side := too_small(chosen) or too_small(samples)) is not None:
        return None, f"no: images of {side} px show traces even in a thumbnail"
    known = unseen & {s.source for s in (*trained_on.train, *trained_on.val, *trained_on.test)}
    fingerprint = training.get("data", {}).get("fingerprint")
    if fingerprint is None:
        relation = "the model does not say what it was trained on"
    elif fingerprint == trained_on.without(known).summary()["fingerprint"]:
        relation = "the model's own training data"
    else:
        relation = "not the data that the model was trained on"
    without = f" without {', '.join(sorted(left_out))}" if left_out else ""
    fitted_on = f"train split of {name}{without} ({len(chosen)} images): {relation}"
    return fit_content_probe(chosen, fitted_on), f"yes, by a probe fitted on the {fitted_on}"


def _shift(raw: Scored, changed: Scored) -> dict[str, float]:
    before, after = raw.probability >= 0.5, changed.probability >= 0.5
    accuracy, raw_accuracy = (float((verdicts == raw.labels).mean()) for verdicts in (after, before))
    return {
        "quality": _SHIFT_QUALITY,
        "accuracy": accuracy,
        "raw_accuracy": raw_accuracy,
        "shift": accuracy - raw_accuracy,
        "changed": float((before != after).mean()),
    }
