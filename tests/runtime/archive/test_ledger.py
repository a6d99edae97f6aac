"""A damaged or foreign file in an archive's folder is one ConfigurationError that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runtime_samples import encoded, picture

from asr_runtime.archive.inputs import Inputs
from asr_runtime.archive.ledger import Account, Ledger
from asr_runtime.errors import ConfigurationError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "photo.png").write_bytes(encoded(picture(), ".png"))
    ledger = Ledger(str(tmp_path / "out"), "jsonl")
    assert ledger.plan({}, Inputs([str(tmp_path / "photo.png")]), 1) == (1, 0)
    ledger.begin(0)
    return ledger


@pytest.mark.parametrize("damage", [b"", b"{", b"[1, 2]", b'{"other": 1}', bytes(range(256))])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("plan/plan.json", lambda ledger: ledger.plan({"model": "a"}, Inputs(["photo.png"]), 1)),
        ("plan/00000.parquet", lambda ledger: ledger.chunk(0)),
        ("begun/000000.json", lambda ledger: ledger.begin(0)),
        ("done/000000.json", lambda ledger: ledger.account(0)),
        ("done/000000.json", lambda ledger: ledger.finished()),
    ],
)
def test_a_damaged_file_is_named(ledger: Ledger, name: str, read: Callable[[Ledger], object], damage: bytes) -> None:
    ledger.finish(0, [], Account())
    ledger.begin(0)
    (Path(ledger.folder) / name).write_bytes(damage)
    with pytest.raises(ConfigurationError, match=Path(name).name):
        read(ledger)
