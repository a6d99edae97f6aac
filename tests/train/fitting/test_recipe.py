"""The recipe of a network: its own, or the default of all."""

from __future__ import annotations

import pytest

from asr_models import ASRNet, registry
from asr_train.fitting import config
from asr_train.fitting.config import LoopConfig, recipe


def test_a_network_without_a_recipe_of_its_own_gets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._NETWORKS, "another", ASRNet)  # type: ignore[index]
    monkeypatch.setattr(config, "default_preprocess", lambda model: {"mode": "crop", "size": 192})
    made, known = recipe("another", data="d"), recipe("asrnet", data="d")
    assert isinstance(made, LoopConfig)
    assert isinstance(known, LoopConfig)
    assert (made.weights, made.options) == ("none", {})
    assert (made.epochs, made.lr, made.monitor) == (known.epochs, known.lr, known.monitor)
