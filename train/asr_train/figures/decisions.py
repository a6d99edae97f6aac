"""The decision table: shares of verdicts for every family of generators and every kind of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decision_lines", "decision_table"]


def decision_table(
    labels: NDArray[np.int_], verdicts: Sequence[str], families: Sequence[str], per_family: bool = True
) -> dict[str, Any]:
    """Count verdicts.

    Args:
        labels: (n,), 0 = real, 1 = AI-generated.
        verdicts: n of `real`, `ai`, `unsure`.
        families: n names; of real images the kind of picture.
        per_family: every family and kind weighs the same in the overall figures, however many images it has.

    Returns:
        Plain JSON data: `decided` (share of verdicts that are not unsure), `error` (share of wrong verdicts among the
        decided ones; None if none is), `ai` and `real`: for generated and for real images `images`, the shares
        `called_ai`, `called_real`, `unsure`, and `families`: name -> the same, worst first. Shares of classes are means
        over families where `per_family`; `decided` and `error` weigh both classes the same.
    """
    names, verdict_array = np.asarray(families), np.asarray(verdicts)
    classes = {
        key: _of_class(names[labels == label], verdict_array[labels == label], key, per_family)
        for label, key in ((0, "real"), (1, "ai"))
    }
    shares = [one for one in classes.values() if one["images"]]
    unsure = float(np.mean([one["unsure"] for one in shares])) if shares else 1.0
    wrong = float(np.mean([one["called_ai" if key == "real" else "called_real"] for key, one in classes.items()]))
    decided = 1 - unsure
    return {"decided": decided, "error": wrong / decided if decided > 0 else None, **classes}


def _of_class(names: NDArray[np.str_], verdicts: NDArray[np.str_], key: str, per_family: bool) -> dict[str, Any]:
    families = {str(name): _shares(verdicts[names == name]) for name in np.unique(names)}
    wrong = "called_ai" if key == "real" else "called_real"
    ordered = dict(sorted(families.items(), key=lambda item: (-item[1][wrong], -item[1]["unsure"], item[0])))
    whole = _shares(verdicts)
    if per_family and families:
        for share in ("called_ai", "called_real", "unsure"):
            whole[share] = float(np.mean([one[share] for one in families.values()]))
    return {**whole, "families": ordered}


def _shares(verdicts: NDArray[np.str_]) -> dict[str, Any]:
    count = max(1, len(verdicts))
    return {
        "images": len(verdicts),
        "called_ai": float((verdicts == "ai").sum() / count),
        "called_real": float((verdicts == "real").sum() / count),
        "unsure": float((verdicts == "unsure").sum() / count),
    }


def decision_lines(table: Mapping[str, Any]) -> list[str]:
    """Return the table as text, worst first."""
    error = "-" if table["error"] is None else f"{table['error']:.1%}"
    width = max([len(name) for key in ("ai", "real") for name in table[key]["families"]] + [20])
    lines = [f"decided {table['decided']:.1%}, wrong {error} of the decided"]
    for key, title in (("ai", "generated"), ("real", "real")):
        lines.append(f"  {title:<{width}}{'images':>8}{'called ai':>11}{'called real':>13}{'unsure':>9}")
        for name, row in (*table[key]["families"].items(), ("all", table[key])):
            lines.append(
                f"  {name:<{width}}{row['images']:>8}{row['called_ai']:>11.1%}{row['called_real']:>13.1%}"
                f"{row['unsure']:>9.1%}"
            )
    return lines
