"""The fault table: every test names its row (`@pytest.mark.fault(9)`) and what it measured (`measured`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
from fault_table import FAULTS

_figures: dict[int, list[str]] = defaultdict(list)
_outcomes: dict[int, list[str]] = defaultdict(list)


def _row(item: pytest.Item) -> int | None:
    mark = item.get_closest_marker("fault")
    return int(mark.args[0]) if mark else None


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a figure to the test's row of the table."""
    row = _row(request.node)
    assert row in FAULTS, "the test needs @pytest.mark.fault(ROW)"
    return _figures[row].append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    row = _row(item)
    if row and (report.when == "call" or report.outcome != "passed"):
        _outcomes[row].append(report.outcome)
        if report.skipped:
            _figures[row].append(f"skipped: {report.longrepr[2]}" if isinstance(report.longrepr, tuple) else "skipped")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section("fault table")
    for row, (fault, required) in FAULTS.items():
        if not (outcomes := _outcomes[row]):
            continue
        state = next((s for s in ("failed", "skipped") if s in outcomes), "passed")
        terminalreporter.write_line(f"{row:>2} {state:<7} {fault} | {required}")
        for figure in dict.fromkeys(_figures[row]):
            terminalreporter.write_line(f"   {figure}")
