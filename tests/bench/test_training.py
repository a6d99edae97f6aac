"""Steps of training by the way they are computed, and the losses that they give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asr_bench import learner
from asr_bench.figures import read_figures
from asr_bench.learner import WAYS, Learner, Way, default_way, loop_recipe
from asr_bench.loss_curves import Curves, loss_curves
from asr_bench.training import main, step_times
from asr_runtime.errors import ConfigurationError
from asr_train.fitting.config import recipe


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of 4 channels."""
    monkeypatch.setattr(learner, "recipe", lambda model, weights: recipe(model, options={"dim": 4}))


def test_ways_take_turns_and_a_table_compares_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["--way", "float32", "--way", "bf16", "--batch", "2", "--rounds", "2", "-o", str(tmp_path / "f.json")]
    )
    assert done.exit_code == 0, done.output
    figures = read_figures(tmp_path / "f.json")
    assert [len(figure.samples) for figure in figures] == [2, 2, 2, 2]
    assert "| float32 |" in done.output
    assert "1.00x" in done.output
    assert "| bf16 |" in done.output


def test_the_same_weights_and_batches_give_the_same_losses_and_bf16_nearly_so(pristine_generators: Path) -> None:
    curves = loss_curves("asrnet", str(pristine_generators), 4, ("float32", "float32, fused AdamW", "bf16"), batch=4)
    assert len(curves.losses["bf16"]) == len(curves.reordered) == 4
    first = [losses[0] for losses in curves.losses.values()]
    assert first[1] == pytest.approx(first[0], abs=1e-6)
    assert first[2] == pytest.approx(first[0], abs=0.05)
    assert first[2] != first[0]  # bfloat16 was used
    assert curves.difference("float32") == 0.0


def test_a_difference_is_that_of_smoothed_losses() -> None:
    steps = np.arange(40)
    curves = Curves("asrnet", {"float32": tuple(1.0 - 0.01 * steps), "bf16": tuple(1.1 - 0.01 * steps)}, (1.0,) * 40)
    assert curves.difference("bf16") == pytest.approx(0.1)
    assert curves.chance == pytest.approx(0.295)  # the last 20: 1 - (0.8 + 0.61) / 2


def test_layouts_and_the_optimiser_are_those_of_the_way() -> None:
    config = loop_recipe("asrnet")
    plain = Learner(config, Way(channels_last=False, fused=True))
    assert plain.optimizer.defaults["fused"]
    assert not next(plain.network.stage1.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert set(WAYS) >= {"float32", default_way()}


def test_a_network_of_the_closed_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="asrnet-lite is solved for in closed form"):
        step_times("asrnet-lite")
    done = CliRunner().invoke(main, ["--curve", "3"])
    assert (done.exit_code, "--curve needs --data" in done.output) == (2, True)
