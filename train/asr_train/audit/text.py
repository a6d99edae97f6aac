"""An audit in words, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asr_train.audit.audit import GIVES_AWAY, Audit

__all__ = ["audit_text"]


def audit_text(audit: Audit) -> str:
    """Return what gives the label away, what occurs twice, and a line of facts per source."""
    counts = [f"{n['real']} real and {n['ai']} AI-generated in {s}" for s, n in audit.data["images"].items()]
    lines = [f"{audit.data['name']} (layout {audit.data['layout']}): {'; '.join(counts)}"]
    if unreadable := audit.data["unreadable"]:
        lines.append(f"unreadable, left out: {len(unreadable)}: {', '.join(sorted(unreadable)[:3])}")
    lines += ["", *_verdict(audit), "", f"Facts that predict the label alone (AUROC, 95% interval; {audit.measured})"]
    for finding in audit.findings:
        mark = "!" if finding["gives_away"] else " "
        lines.append(f"  {mark} {_figure(finding)}  {finding['what']}: {finding['says']}")
    if not audit.findings:
        lines.append("    nothing differs, or there is too little to measure")
    if audit.content is None:
        lines.append(f"    content: {audit.content_note}")
    lines += [*_left_out(audit.leave_one_generator_out), *_twice(audit.duplicates), *_table(audit)]
    return "\n".join(lines) + "\n"


def _verdict(audit: Audit) -> Iterator[str]:
    """Say in words what the figures amount to."""
    leaks = [f for f in audit.findings if f["gives_away"]]
    if audit.files is not None:
        yield f"  {_figure(audit.files)}  all facts of the files together"
    if audit.content is not None:
        yield f"  {_figure(audit.content)}  content alone ({audit.content_note})"
    if not leaks:
        yield f"Nothing was found that gives the label away (AUROC above {GIVES_AWAY})."
        return
    if any(f["kind"] == "file" for f in leaks):
        yield "The files give the label away: train with --reencode 1 and evaluate with --equalise, as is the default,"
        yield "so that both classes have the same compression; crops of one size hide the rest."
    if any(f["kind"] == "content" for f in leaks):
        yield "The subjects give the label away: AUROC measures them too. Trust ca-AUROC, and train on pairs"
        yield "(asr-resynthesise) or add the subjects that one class lacks."


def _left_out(table: Mapping[str, Any]) -> Iterator[str]:
    generators = table["generators"]
    if not generators:
        return
    means = [f"{k} {table[f'mean_{k}']:.2f}" for k in ("content", "files") if f"mean_{k}" in table]
    yield ""
    yield f"The same for generators that were left out of the fit (AUROC; mean: {', '.join(means)})"
    width = max(len(name) for name in generators)
    yield f"    {'':<{width}}  content   files"
    for name, figures in sorted(generators.items(), key=lambda item: -item[1].get("content", 0.0)):
        values = "".join(f"{figures[k]:>8.2f}" if k in figures else f"{'-':>8}" for k in ("content", "files"))
        yield f"    {name:<{width}} {values}"


def _twice(pairs: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    for kind, name in (("exact", "the same file"), ("near", "nearly the same picture")):
        counts = pairs[kind]
        text = f"{counts['across_splits']} across splits, {counts['across_classes']} across classes"
        yield f"Pairs of {name}: {text}, {counts['within']} within a class of a split"
        if counts["across_splits"] or counts["across_classes"]:
            yield from (f"    {a} = {b}" for a, b in counts["examples"][:3])
    if pairs["blank"]:
        yield f"Pictures of one colour: {len(pairs['blank'])}: {', '.join(pairs['blank'][:3])}"


def _table(audit: Audit) -> Iterator[str]:
    """Yield a line per split and class, and per source of the first split."""
    first = audit.groups[0]["split"] if audit.groups else ""
    shown = [g for g in audit.groups if g["source"] is None or g["split"] == first]
    width = max([len(_name(g)) for g in shown] + [1])
    yield ""
    yield (
        f"{'':<{width}} {'images':>7} {'median size':>12} {'of 8':>5} {'of 64':>5} {'EXIF':>5} "
        f"{'JPEG quality':>13} {'tables':>7}  container"
    )
    for group in shown:
        quality = group["jpeg_quality"]
        span = "-" if quality is None else f"{quality[0]:.0f} to {quality[2]:.0f}"
        size = f"{group['width'][1]:.0f} x {group['height'][1]:.0f}"
        containers = ", ".join(f"{n / group['images']:.0%} {name}" for name, n in group["containers"].items())
        yield (
            f"{_name(group):<{width}} {group['images']:>7} {size:>12} {group['multiples_of_8']:>5.0%} "
            f"{group['multiples_of_64']:>5.0%} {group['exif']:>5.0%} {span:>13} {len(group['jpeg_tables']):>7}  "
            f"{containers}"
        )


def _name(group: Mapping[str, Any]) -> str:
    return f"{group['split']} {group['class']}" if group["source"] is None else f"  {group['source']}"


def _figure(figures: Mapping[str, Any]) -> str:
    low, high = figures["interval"]
    return f"{figures['auroc']:.2f} [{low:.2f}, {high:.2f}]"
