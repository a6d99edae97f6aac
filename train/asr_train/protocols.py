"""Evaluation protocols that train: what a detector is worth on a generator it has never seen."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_models import load_checkpoint
from asr_runtime.errors import DatasetError
from asr_train.config import TrainConfig
from asr_train.evaluate import score_checkpoint
from asr_train.fit import train
from asr_train.layouts import find_data
from asr_train.metrics import binary_metrics

__all__ = ["leave_one_generator_out"]

log = logging.getLogger("asr_train")


def leave_one_generator_out(
    config: TrainConfig, runs: Path, at_least: int = 10, progress: bool = True
) -> Mapping[str, Any]:
    """Train once per generator without it, then tell that generator's validation images from all validation photos.

    Neither training nor the choice of the best epoch nor calibration sees the generator that is left out. Results are
    written to `runs`/leave-one-generator-out.json after every generator; one that stands there already, under the
    same configuration and data, is not trained again.

    Args:
        config: of each training; its `seed` is the same for all.
        runs: run folders are made here.
        at_least: generators with fewer validation images are never left out: their figures would say little.
        progress: show progress bars.

    Returns:
        Plain JSON data: `generators` (figures per generator), `mean_auroc`, `mean_accuracy`, `protocol`.

    Raises:
        DatasetError: no generator has enough validation images.
    """
    data = find_data(config.data, config.layout).without(config.leave_out)
    counts = Counter(s.source for s in data.split("val") if s.label == 1)
    names = sorted(name for name, count in counts.items() if count >= at_least)
    if len(counts) < 2 or not names:
        raise DatasetError(
            f"{data.root}: leaving one generator out needs two generators or more, one of them with {at_least} "
            f"validation images; found {', '.join(f'{n} ({c})' for n, c in sorted(counts.items())) or 'none'}"
        )
    path = runs / "leave-one-generator-out.json"
    protocol = {
        "protocol": "leave one generator out",
        "equalise": config.equalise,
        "config": config.published(),
        "fingerprint": data.summary()["fingerprint"],
    }
    protocol = json.loads(json.dumps(protocol))
    done = json.loads(path.read_text()) if path.is_file() else {}
    results: dict[str, Any] = done.get("generators", {}) if done.get("protocol") == protocol else {}
    runs.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in results:
            continue
        log.info("leaving out %s", name)
        run = train(dataclasses.replace(config, leave_out=(*config.leave_out, name)), runs, progress=progress)
        unseen = [s for s in data.val if s.label == 0 or s.source == name]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        scored = score_checkpoint(
            load_checkpoint(run.checkpoint), unseen, config.quality, config.batch_size, config.workers, device
        )
        results[name] = {"run": run.folder.name, **binary_metrics(scored.labels, scored.probability)}
        log.info("%s, never seen: AUROC %.4f", name, results[name]["auroc"])
        path.write_text(json.dumps(_summary(protocol, results), indent=2) + "\n")
    return _summary(protocol, results)


def _summary(protocol: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "mean_auroc": float(np.mean([r["auroc"] for r in results.values()])),
        "mean_accuracy": float(np.mean([r["accuracy"] for r in results.values()])),
        "generators": dict(results),
    }
