"""What each process runs in test_ranks.py: one training of a tiny network; rank 0 writes its history."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path

from asr_train.fitting.config import recipe
from asr_train.fitting.fit import train
from asr_train.fitting.ranks import joined_ranks


def main(data: str, out: str, options: str) -> None:
    """Train 20 epochs of one batch each, or solve for a head in closed form."""
    warnings.simplefilter("ignore")
    given = json.loads(options)
    if given.get("model") == "asrnet-lite":
        given |= {"options": {"blocks": 2}, "ridge": 1.0, "batch_size": 4}
    else:
        given = {"model": "asrnet", "options": {"dim": 4}, "epochs": 20, "epoch_size": 8, "batch_size": 8, **given}
    config = recipe(data=data, workers=0, **given)
    config = dataclasses.replace(config, preprocess={**config.preprocess, "mode": "crop", "size": 48})
    with joined_ranks() as ranks:
        parts = ranks.gather(ranks.rank)
        assert parts == list(range(ranks.size))
        run = train(config, Path(out) / "runs", ranks=ranks)
        if ranks.is_first:
            facts = {"size": ranks.size, "nodes": ranks.nodes, "folder": str(run.folder), **run.summary}
            (Path(out) / "summary.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
