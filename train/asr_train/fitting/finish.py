"""Calibrates a fitted network and writes its checkpoint with all facts of the run."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from asr_models import (
    ASRNetLite,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from asr_runtime.errors import DatasetError
from asr_runtime.whole_file import whole_file
from asr_train.data.families import find_families
from asr_train.data.json_file import write_json
from asr_train.data.layouts import DataFolder
from asr_train.figures.calibrate import FittedCalibration, calibrate, calibrate_video
from asr_train.figures.scoring import score_checkpoint, score_clips, torch_device
from asr_train.fitting.closed_form import ClosedForm
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, TrainConfig
from asr_train.fitting.loop_callbacks import BestEpoch
from asr_train.fitting.ranks import Ranks
from asr_train.fitting.run_folder import Run
from asr_train.fitting.video_rules import video_rule, whole_video_rule

__all__ = ["finish_closed_form", "finish_loop"]


def finish_closed_form(
    network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path, ranks: Ranks
) -> Run:
    """Solve for the head in closed form; calibrate it on margins from heads that had not seen the picture.

    Verdicts on videos are calibrated alike, on clips made of those pictures. Every process has features of some
    pictures; all go through the same steps, and the first writes.
    """
    started = time.monotonic()
    families = ranks.from_first(lambda: find_families(data, Path(config.families) if config.families else None))
    solved = ClosedForm(network, config, data, folder.parent, families, ranks=ranks)
    fitted_on = solved.calibrated_on()
    fitted, whole = solved.thresholds(fitted_on)
    head = solved.head()
    scored = solved.score(head, fitted, data.val)
    facts: dict[str, Any] = {
        "best_epoch": 0,
        "epochs": 0,
        "val_auroc": float(roc_auc_score(scored.labels, scored.margins)),
        "lone_sources": list(solved.heads.lone_sources),
    }
    if pairs := solved.pair_figures(head):
        facts["val_pairs"] = pairs
    centre, clips_of = solved.clip_margins(head), f"H.264 clips made of {fitted_on}"
    rule, facts["val_video"] = video_rule(centre, fitted, clips_of)
    if whole is not None and whole.top == len(whole.windows):  # the mean of all windows is linear, as clips need it
        clips = solved.clip_margins(head, whole=True)
        whole, facts["val_video_whole"] = whole_video_rule(clips, centre, whole, clips_of)
    path = folder / f"checkpoint_{config.model}.pth"
    checkpoint = Checkpoint(
        config.model,
        config.options,
        config.preprocess,
        solved.install(network, head),
        video=dataclasses.asdict(rule),
        whole=dataclasses.asdict(whole) if whole is not None else {},
    )
    seconds = time.monotonic() - started

    def written() -> dict[str, Any]:
        summary = _save(path, checkpoint, fitted, config, data, facts, seconds, solved.store.unreadable)
        write_json(folder / "summary.json", summary, sort_keys=True)
        return summary

    return Run(folder, path, ranks.from_first(written))


def finish_loop(
    unreadable: Mapping[str, str], best: BestEpoch, config: LoopConfig, data: DataFolder, folder: Path, seconds: float
) -> dict[str, Any]:
    """Calibrate the best epoch on the validation split; write it again with all its facts, and summary.json."""
    checkpoint = load_checkpoint(best.path)
    device = torch_device("auto")
    scored = score_checkpoint(checkpoint, data.val, config.quality, config.batch_size, config.workers, device)
    equalised = f", every image re-encoded at JPEG {config.quality}" if config.quality else ""
    fitted_on = f"the validation split of {data.root.name} ({len(scored.labels)} images{equalised})"
    if len(scored.labels) == 0:
        raise DatasetError(f"{data.root}: no validation image could be read")
    fitted = calibrate(scored.labels, scored.margins, fitted_on)
    labels, margins = score_clips(checkpoint, data.val, config.quality, config.batch_size, config.workers, device)
    rule = calibrate_video(labels, fitted.calibration.log_odds(margins), f"H.264 clips made of {fitted_on}")
    checkpoint = dataclasses.replace(checkpoint, video=dataclasses.asdict(rule))
    facts = {
        "best_epoch": best.epoch,
        "epochs": len(best.history),
        f"val_{config.monitor}": best.score if config.monitor != "loss" else -best.score,
    }
    summary = _save(best.path, checkpoint, fitted, config, data, facts, seconds, unreadable)
    summary["history"] = best.history
    write_json(folder / "summary.json", summary, sort_keys=True)
    return summary


def _save(
    path: Path,
    checkpoint: Checkpoint,
    fitted: FittedCalibration,
    config: TrainConfig,
    data: DataFolder,
    facts: Mapping[str, Any],
    seconds: float,
    unreadable: Mapping[str, str],
) -> dict[str, Any]:
    """Write the checkpoint with its calibration and all facts of the run; return them."""
    summary = {
        "model": config.model,
        **facts,
        "seed": config.seed,
        "minutes": round(seconds / 60, 1),
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "config": config.published(),
        "data": data.summary(),
        "left_out": list(config.leave_out),
        "unreadable": sorted(Path(name).name for name in unreadable),
    }
    summary = json.loads(json.dumps(summary))
    calibrated = dataclasses.replace(
        checkpoint,
        calibration=_plain(fitted.calibration),
        decision=_plain(fitted.decision),
        operating_points=tuple(_plain(p) for p in fitted.operating_points),
        training=summary,
    )
    with whole_file(path) as part:
        save_checkpoint(part, calibrated)
    return {**summary, "calibration": _plain(fitted.calibration)}


def _plain(fact: Any) -> dict[str, Any]:
    return dict(vars(fact))
