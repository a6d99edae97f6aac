"""A parity report: every engine against PyTorch in float32 and float64, the worst frames, every stage."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from asr_export.answers import Answers, Difference, answers, difference, pytorch
from asr_export.engines import engine
from asr_export.parity import Parity, explain, judge, tolerance
from asr_export.parity_inputs import Frames, adversarial_frames, real_frames
from asr_export.stages import StageError, stage_errors
from asr_models import Checkpoint
from asr_runtime import Detector
from asr_runtime.errors import ModelError
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["ParityReport", "parity_report", "write_parity"]

_FLOAT32, _FLOAT64 = "PyTorch float32", "PyTorch float64"
_FLOAT64_FRAMES = 16
_INK, _GOOD, _BAD = "#5b7db1", "#2a9d8f", "#d1603d"


@dataclass(frozen=True)
class ParityReport:
    """The figures of a comparison.

    Attributes:
        verdicts: engine -> whether it computes what eager float32 PyTorch computes.
        differences: (engine, reference) -> figures; references are PyTorch in float32 and in float64.
        stages: the file in onnxruntime against PyTorch, on the real frame that differs most.
        stage_frame: its name.
        answers: engine -> its answers.
        facts: of the model, the file and the machine's software.
    """

    verdicts: Mapping[str, Parity]
    differences: Mapping[tuple[str, str], Difference]
    stages: Sequence[StageError]
    stage_frame: str
    answers: Mapping[str, Answers]
    facts: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every engine passed."""
        return all(verdict.passed for verdict in self.verdicts.values())

    @property
    def culprit(self) -> StageError | None:
        """Return the first stage beyond its budget."""
        return next((stage for stage in self.stages if not stage.within), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "passed": self.passed,
            **self.facts,
            "engines": {name: verdict.to_dict() for name, verdict in self.verdicts.items()},
            "differences": [
                {"engine": name, "reference": reference, **dataclasses.asdict(difference)}
                for (name, reference), difference in self.differences.items()
            ],
            "first_stage_beyond_budget": self.culprit.name if self.culprit else None,
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "stage_frame": self.stage_frame,
        }

    def to_markdown(self) -> str:
        """Return the figures as Markdown tables."""
        lines = [f"# Parity of {self.facts['file']}: {'passed' if self.passed else 'FAILED'}", ""]
        lines += [f"- {name}: {'passed' if v.passed else 'FAILED'}, {v}" for name, v in self.verdicts.items()]
        lines += [f"- {key}: {value}" for key, value in self.facts.items() if key != "file"]
        if self.culprit is not None:
            lines += [f"- **first stage beyond its budget: {self.culprit.name}** ({self.culprit.relative:.1e})"]
        lines += ["", "| engine | against | logits: max | 99.9% | mean | max of spread | probability: max | flips |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for (name, reference), d in self.differences.items():
            logits = " | ".join(_number(d.logits[key]) for key in ("max", "p99.9", "mean", "max of spread"))
            flips = ", ".join(f"{point} {count}" for point, count in d.flips.items() if count) or "none"
            lines.append(f"| {name} | {reference} | {logits} | {_number(d.probability['max'])} | {flips} |")
        for (name, reference), d in self.differences.items():
            if reference == _FLOAT32:
                worst = "; ".join(f"{frame} ({error:.1e})" for frame, error in d.worst)
                lines += ["", f"Worst frames of {name}: {worst}."]
        lines += ["", f"Stages, on the real frame that differs most ({self.stage_frame}):", ""]
        lines += ["| stage | relative error | budget |", "|---|---|---|"]
        lines += [
            f"| {s.name} | {s.relative:.1e}{'' if s.within else ' **beyond**'} | {s.budget:.1e} |" for s in self.stages
        ]
        return "\n".join(lines) + "\n"

    def to_svg(self) -> str:
        """Draw the errors of all frames, sorted, and of all stages."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        reference = self.answers[_FLOAT32]
        scale = max(float(np.abs(reference.logits).max()), 1.0)
        for name in (*self.verdicts, _FLOAT64):
            answers = self.answers[name]
            error = np.sort(np.abs(answers.logits - reference.among(answers.names).logits).max(axis=1)) / scale
            left.plot(np.linspace(0, 1, len(error)), np.maximum(error, 1e-9), label=name, linewidth=1.6)
        allowed = next(iter(self.verdicts.values())).tolerance
        left.axhline(allowed, color=_BAD, linestyle="--", linewidth=1, label="allowed")
        left.set(yscale="log", xlabel="share of frames", ylabel="difference from PyTorch float32\n/ largest logit")
        left.legend(frameon=False, fontsize=8)
        rows = range(len(self.stages))
        colours = [_GOOD if stage.within else _BAD for stage in self.stages]
        right.barh(rows, [max(stage.relative, 1e-9) for stage in self.stages], color=colours, left=1e-9)
        right.plot([stage.budget for stage in self.stages], rows, "|", color=_INK, markersize=9)
        right.set_yticks(rows, [stage.name.removeprefix("network.") for stage in self.stages], fontsize=8)
        right.invert_yaxis()
        right.set(xscale="log", xlabel="relative error after the stage (line: its budget)")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
        return buffer.getvalue()


def parity_report(checkpoint: Checkpoint, exported: Path, images: Path, engines: Sequence[str]) -> ParityReport:
    """Compare an exported file with its checkpoint on real images, video frames and adversarial frames.

    Args:
        checkpoint: what it was made from.
        exported: the file.
        images: folder of images and videos.
        engines: of `asr_export.engines.ENGINES`.

    Raises:
        ConfigurationError: no image in the folder, or an unknown engine.
        DependencyError: an engine is not installed.
        ModelError: the file cannot be read or is refused.
    """
    try:
        model = exported.read_bytes()
    except OSError as error:
        raise ModelError(f"model {exported}: cannot be read ({error.strerror})") from None
    deployed, card = checkpoint.deployed(), Detector(exported, device="cpu").card
    candidates = {name: engine(name, model) for name in engines}
    batches = [*real_frames(images), *adversarial_frames(deployed.preprocess.size)]
    given = {
        name: answers(run, progress_bar(batches, name))
        for name, run in {_FLOAT32: pytorch(deployed), **candidates}.items()
    }
    few = _spread_out([batch for batch in batches if len(batch.frames) == 1])
    exact = given[_FLOAT64] = answers(pytorch(deployed, torch.float64), progress_bar(few, _FLOAT64))
    allowed = tolerance(deployed.network, card.precision)
    explained = {name: explain(given[name], given[_FLOAT32], deployed, batches, allowed) for name in candidates}
    verdicts = {name: judge(given[name], given[_FLOAT32], card, allowed, explained[name]) for name in candidates}
    differences = {(name, _FLOAT32): difference(given[name], given[_FLOAT32], card) for name in candidates}
    differences |= {
        (name, _FLOAT64): difference(given[name].among(exact.names), exact, card) for name in (_FLOAT32, *candidates)
    }
    real = {name for name, is_real in zip(given[_FLOAT32].names, given[_FLOAT32].real, strict=True) if is_real}
    real = real - explained[engines[0]] or real  # the stages of a frame that is explained add no information
    worst = difference(given[engines[0]].among(real), given[_FLOAT32].among(real), card).worst[0][0]
    frames = next(b.frames for b in batches if b.name == worst.partition(", number ")[0])
    facts = {
        "file": exported.name,
        "network": card.name,
        "precision": card.precision,
        "frames": len(given[_FLOAT32].names),
        "of them real": int(given[_FLOAT32].real.sum()),
        "checkpoint": "the one of the file"
        if checkpoint.sha256 == card.checkpoint_sha256
        else "not the one of the file",
    }
    return ParityReport(verdicts, differences, stage_errors(deployed, model, frames, allowed), worst, given, facts)


def write_parity(report: ParityReport, path: Path) -> list[Path]:
    """Write FILE (JSON), and beside it the same name with .md and .svg.

    Raises:
        OutputError: the folder cannot be written.
    """
    texts = {
        path: json.dumps(report.to_dict(), indent=2) + "\n",
        path.with_suffix(".md"): report.to_markdown(),
        path.with_suffix(".svg"): report.to_svg(),
    }
    for file, text in texts.items():
        write_whole(file, text, what="the report")
    return list(texts)


def _spread_out(batches: Sequence[Frames]) -> list[Frames]:
    """Choose some frames, evenly: float64 is not what networks are fast in."""
    return [batches[i] for i in np.unique(np.linspace(0, len(batches) - 1, _FLOAT64_FRAMES).round().astype(int))]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
