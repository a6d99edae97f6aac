"""The model card for people: Markdown from the card that travels inside the file, nothing that is not in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_runtime.contract import ModelCard

__all__ = ["card_text"]


def card_text(card: ModelCard, title: str, size: int, macs: float) -> str:
    """Return a page on one model: what it is, what it was trained on, what it scores, where it must not be used.

    Args:
        card: from the exported file.
        title: name of the model.
        size: of the file in bytes.
        macs: multiply-adds of one crop (`asr_models.multiply_adds`).
    """
    training = card.training
    options = ", ".join(f"{k} {v}" for k, v in card.options.items()) or "no options"
    lines = [
        f"# {title}",
        "",
        f"- Network: {card.name} ({options}), {training.get('parameters', 0):,} parameters, {size / 1e6:.1f} MB, "
        f"{macs / 1e9:.2f} GMAC per crop.",
        f"- Input: the centre {card.preprocess.size} x {card.preprocess.size} pixels ({card.preprocess.mode}).",
        *_whole(card),
        f"- Calibration: {card.calibration.fitted_on}.",
        f"- Verdict: {card.decision.rule}; real below {card.decision.real_below:.3f}, ai from "
        f"{card.decision.ai_from:.3f}.",
        *_video(card),
        f"- Parity with {card.parity.get('reference', 'PyTorch')}: logits within "
        f"{card.parity.get('logits_relative', float('nan')):.1e} of the largest.",
        "",
        "## Training data",
        "",
        *_data(training.get("data", {})),
        "",
        "## Results",
    ]
    for name, result in card.metrics.items():
        lines += ["", f"### {name}", "", *_result(result)]
    return "\n".join([*lines, "", *_limits(card), ""])


_SEES_THE_CENTRE = (
    "- It sees the centre of a picture only. An edit outside it, or a real photo with one generated detail, is missed."
)
_SEES_WINDOWS = (
    "- It sees windows of a picture, not all of a large one. An edit between them, or one that fills a small part of a "
    "window, is missed."
)
_LIMITS = (
    "## Limits",
    "",
    "- A verdict is a hint, never evidence: do not use it alone to accuse, to punish, to publish or to delete.",
    "- Generators whose rows above are near 0.5 are not recognised. A new generator may be as bad as the worst row.",
    "- Large screenshots, strong video compression and shrinking by half take much of the traces it looks for away.",
    "- Photos that went through a neural enhancer or upscaler (many phones do this) carry such traces too.",
)


def _limits(card: ModelCard) -> list[str]:
    sees = _SEES_WINDOWS if card.whole is not None and card.whole.is_default else _SEES_THE_CENTRE
    return [*_LIMITS[:3], sees, *_LIMITS[3:]]


def _whole(card: ModelCard) -> list[str]:
    """Say how the whole picture is looked at, with the formula that any program can follow."""
    if (whole := card.whole) is None:
        return []
    side = f"{card.preprocess.size} x {card.preprocess.size} pixels"
    places = ", ".join(f"({row:g}, {column:g})" for row, column in whole.windows)
    use = "the default" if whole.is_default else "only where it is asked for"
    videos = "videos too, by a rule of their own" if whole.video is not None else "of videos the centre only"
    if clips := card.training.get("val_video_whole"):
        videos += (
            f", AUROC on unseen clips {clips['unseen_auroc']:.3f}, of the centre {clips['unseen_centre_auroc']:.3f}"
        )
    return [
        f"- Whole picture ({use}; {videos}): {len(whole.windows)} windows of {side}, each run as a frame of its own; "
        f"the mean m of the {whole.top} largest margins (logit ai - logit real) gives the probability "
        f"sigmoid(m / {whole.calibration.temperature:.4g} + {whole.calibration.shift:.4g}), calibrated on "
        f"{whole.calibration.fitted_on}. Real below {whole.decision.real_below:.3f}, ai from "
        f"{whole.decision.ai_from:.3f}. A picture of {side} or less is judged by its centre.",
        f"- Places of the windows (vertical, horizontal), as fractions of the room that the picture leaves: {places}.",
    ]


def _video(card: ModelCard) -> list[str]:
    if card.video is None:
        return ["- Videos: the mean log-odds of all frames, judged like those of an image."]
    rule = card.video.decision
    line = (
        f"- Videos: the mean log-odds of all frames, calibrated on {card.video.calibration.fitted_on}; real below "
        f"{rule.real_below:.3f}, ai from {rule.ai_from:.3f}."
    )
    if clips := card.training.get("val_video"):
        line += (
            f" On {clips['videos']} clips made of the validation split: AUROC {clips['auroc']:.3f}, balanced ECE "
            f"{clips['balanced_ece']:.3f} ({clips['balanced_ece_as_images']:.3f} with the calibration of images), "
            f"{clips['unsure']:.0%} unsure, {clips['false_positive_rate']:.1%} of the real ones and "
            f"{clips['true_positive_rate']:.0%} of the generated ones called ai."
        )
    return [line]


def _data(data: Mapping[str, Any]) -> list[str]:
    lines = ["| split | class | images | sources |", "|---|---|---|---|"]
    for split, kinds in data.get("images", {}).items():
        for kind, sources in kinds.items():
            named = ", ".join(f"{source} {n}" for source, n in sources.items())
            lines.append(f"| {split} | {kind} | {sum(sources.values())} | {named} |")
    return lines


def _result(result: Mapping[str, Any]) -> list[str]:
    if "auroc_float32" in result:
        return [
            f"{result['how']}: AUROC {result['auroc']:.4f} (float32 {result['auroc_float32']:.4f}), "
            f"{result['changed']:.2%} of the verdicts change (JPEG 96 changes {result['changed_by_jpeg_96']:.2%}), "
            f"{result['reversed']} from real to ai or back, on {result['images']} images."
        ]
    if "windows" in result:
        return [
            f"Quick looks take {result['windows']:.0%} of the windows; {result['changed']:.2%} of the verdicts change "
            f"(JPEG 96 changes {result['changed_by_jpeg96']:.2%}), {result['flips']} from real to ai or back, on "
            f"{result['pictures']} images."
        ]
    protocol = result.get("protocol", {})
    facts = [f"{k}: {v}" for k, v in protocol.items() if isinstance(v, str | int) and k != "fingerprint"]
    rows = dict(result.get("generators", {}))
    if "overall" in result:
        by_source = result.get("by_source", {})
        rows = {"all": result["overall"], **{n: m for n, m in by_source.items() if m.get("against")}}
    else:
        means = {k.removeprefix("mean_"): v for k, v in result.items() if k.startswith("mean_")}
        means["interval"] = result.get("interval", {})
        rows = {"mean": means, **dict(sorted(rows.items(), key=lambda item: item[1].get("ca_auroc") or 0.0))}
    if (pooled := result.get("pooled_balanced_ece")) is not None:
        facts.append(f"balanced ECE of all generators together: {pooled:.3f}")
    lines = ["; ".join(facts) + "." if facts else "", ""]
    lines += [
        "| | images | content-adjusted AUROC | AUROC | TPR at 5% FPR | balanced ECE |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in rows.items():
        cells = [_with_interval(figures, key) for key in ("ca_auroc", "auroc", "tpr_at_fpr_5%", "balanced_ece")]
        lines.append(f"| {name} | {figures.get('ai', figures.get('images', ''))} | {' | '.join(cells)} |")
    for look, table in result.get("decisions", {}).items():
        lines += ["", *_decisions(look, table)]
    return lines


def _decisions(look: str, table: Mapping[str, Any]) -> list[str]:
    """Return a decision table (`asr_train.figures.decisions`), worst first."""
    error = "-" if table["error"] is None else f"{table['error']:.1%}"
    lines = [
        f"Verdicts, {look}: {table['decided']:.1%} decided, {error} of these wrong; families weigh the same.",
        "",
        "| | images | called ai | called real | unsure |",
        "|---|---|---|---|---|",
    ]
    for key, title, wrong in (("ai", "generated", "called_real"), ("real", "real", "called_ai")):
        families = table[key]["families"].items()
        worst_first = sorted(families, key=lambda item: (-item[1][wrong], -item[1]["unsure"], item[0]))
        for name, row in {f"**{title}, all**": table[key], **dict(worst_first)}.items():
            shares = " | ".join(f"{row[share]:.1%}" for share in ("called_ai", "called_real", "unsure"))
            lines.append(f"| {name} | {row['images']} | {shares} |")
    return lines


def _with_interval(figures: Mapping[str, Any], key: str) -> str:
    value = figures.get(key)
    if value is None:
        return ""
    interval = figures.get("interval", {}).get(key)
    return f"{value:.3f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
