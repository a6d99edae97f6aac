"""asr-doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from asr_runtime.command import command, model_option

if TYPE_CHECKING:
    from asr_runtime.doctor import Examination

__all__ = ["doctor_command"]

_EXIT_NOT_WORKING = 2


@command("asr-doctor")
@model_option
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def doctor_command(model: str | None, form: str) -> None:
    """Test everything that asr-screen needs, and report what works on this machine.

    Exit codes: 0 everything that asr-screen needs works; 2 something does not.
    """
    from asr_runtime.doctor import examine
    from asr_runtime.reports.text import Output

    examination = examine(model)
    text = json.dumps(examination.to_dict(), indent=2) if form == "json" else _doctor_table(examination)
    Output().write(text + "\n")
    if not examination.ok:
        click.get_current_context().exit(_EXIT_NOT_WORKING)


def _doctor_table(examination: Examination) -> str:
    lines = [f"{name:<16} {version}" for name, version in examination.versions.items()]
    lines.append("")
    for check in examination.checks:
        state = "ok" if check.ok else ("FAILED" if check.needed else "no")
        lines.append(f"{check.group:<9} {check.name:<12} {state:<7} {check.detail}")
    lines.append("")
    if examination.model:
        lines.append("model     " + ", ".join(f"{key} {value}" for key, value in examination.model.items()))
    verdict = "works on this machine" if examination.ok else "does not work on this machine: see FAILED above"
    lines.append(f"asr-screen {verdict}")
    return "\n".join(lines)
