"""The precision of a training where none is asked for."""

from __future__ import annotations

import pytest
import torch

from asr_train.fitting import loop
from asr_train.fitting.config import LoopConfig


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("amp", "native", "expected"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("off", True, "32-true"),
        ("on", False, "bf16-mixed"),
        ("bf16", False, "bf16-mixed"),
    ],
)
def test_bfloat16_is_taken_unasked_only_where_the_processor_has_it(
    amp: str, native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "has_bf16", lambda: native)
    assert loop._precision(LoopConfig(amp=amp)) == expected  # type: ignore[arg-type]
