"""An HTML page from a template, without scripts or outside resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import jinja2

from asr_runtime.machine import package_version

__all__ = ["html_page"]


def html_page(package: str, template: str, filters: Mapping[str, Callable[..., str]], values: Mapping[str, Any]) -> str:
    """Fill a template.

    Args:
        package: its folder `templates` holds the template.
        template: name of the file.
        filters: name in the template -> function.
        values: name in the template -> value; `written` (today) and `version` (of this project) are added.

    Returns:
        HTML, UTF-8; characters that UTF-8 cannot hold (of file names that are no text) become question marks.

    Raises:
        jinja2.UndefinedError: the template uses a name that has no value.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    added = {"written": date.today().isoformat(), "version": package_version("asrnet-edge")}
    page = environment.get_template(template).render(**values, **added)
    return page.encode("utf-8", "replace").decode("utf-8")
