"""asr-audit."""

from __future__ import annotations

from pathlib import Path

import click

from asr_models import ModelsError
from asr_runtime.command import FILE, command
from asr_train.commands.options import by_position_option, data_option, layout_option, log_to_stderr

__all__ = ["audit_command"]


@command("asr-audit", refusals=(ModelsError,), silences_libraries=True)
@data_option
@layout_option
@by_position_option
@click.option("--json", "path", type=FILE, metavar="FILE", help="Write everything that was found there as well.")
def audit_command(data: Path, layout: str | None, labels_by_position: bool, path: Path | None) -> None:
    """Find shortcuts in a data folder: facts other than generator traces that give the label away.

    File facts (container, size, compression, metadata), subject matter, and pictures that occur twice; worst first.
    """
    from asr_train.audit.audit import audit
    from asr_train.audit.text import audit_text
    from asr_train.data.json_file import write_json
    from asr_train.data.layouts import find_data

    log_to_stderr()
    report = audit(find_data(data, layout, labels_by_position))
    click.echo(audit_text(report), nl=False)
    if path is not None:
        write_json(path, report.to_dict())
