"""Facts about the processor."""

from __future__ import annotations

import pytest

from asr_runtime import machine


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"model name": "AMD EPYC", "flags": "fpu avx512f avx512_bf16"}, True),
        ({"model name": "Intel Xeon", "flags": "amx_bf16 amx_tile"}, True),
        ({"model name": "Intel Xeon", "flags": "fpu avx512f avx512_vnni"}, False),
        ({"CPU implementer": "0x41", "Features": "fp asimd bf16"}, True),
        ({"CPU implementer": "0x41", "Features": "fp asimd"}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_read_from_the_features(
    facts: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: facts)
    assert machine.has_bf16() is expected
