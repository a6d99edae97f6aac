"""Configurations in files: written by every run, read by `asr-train --config`, refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_training import run_train

from asr_runtime.errors import ConfigurationError
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, TrainConfig, recipe
from asr_train.fitting.config_file import load_config, read_config, write_config


@pytest.mark.parametrize(
    "config",
    [
        recipe("asrnet", options={"dim": 8}, leave_out=("sd3",), equalise="off", threads=1),
        recipe("asrnet-lite", options={"scales": [1, 2], "activations": [3, 11]}, augment={"quality": (70, 90)}),
        recipe("fft-convnext_tiny", options={"spectrum": "patch"}, lr=1e-5, epoch_size=12),
    ],
    ids=lambda config: config.model,
)
def test_what_is_written_is_read_and_trains_the_same(tmp_path: Path, config: TrainConfig) -> None:
    write_config(tmp_path / "config.toml", config)
    expected = json.dumps(config.to_dict())
    assert json.dumps(load_config(tmp_path / "config.toml").to_dict()) == expected
    assert json.dumps(recipe(**read_config(tmp_path / "config.toml")).to_dict()) == expected


def test_what_a_file_leaves_out_is_the_recipes(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('model = "asrnet-lite"\nridge = 1\n[augment]\nblur = 0.5\n[options]\nscales = [2]\n')
    config = recipe(**read_config(path))
    plain = recipe("asrnet-lite")
    assert isinstance(config, ClosedFormConfig)
    assert (config.ridge, config.options, config.augment.edit) == (1.0, {"scales": [2]}, plain.augment.edit)
    assert config == dataclasses.replace(
        plain, ridge=1.0, options={"scales": [2]}, augment=dataclasses.replace(plain.augment, blur=0.5)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate = 1", "unknown key 'learning_rate' for asrnet; expected one of model, options"),
        ("[augment]\nblurr = 1", "unknown key 'augment.blurr' for asrnet; expected one of flip"),
        ("[options]\nscales = [1]", "unknown key 'options.scales' for asrnet; expected one of dim"),
        ("[preprocess]\nside = 3", "unknown key 'preprocess.side' for asrnet; expected one of mode, size"),
        ('model = "asrnet-lite"\nlr = 1', "unknown key 'lr' for asrnet-lite"),
        ('lr = "fast"', "Expected `float`, got `str` - at `$.lr`"),
        ("[augment]\nquality = [60]", "at `$.augment.quality`"),
        ("[augment]\nblur = 2", "augmentation blur 2"),
        ("epochs = 0", "epochs 0: expected a number above 0"),
        ("options = 3", "expected a table [options]"),
        ("model = 3", "model '3': expected asrnet"),
        ("lr = = 3", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigurationError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*LeafSpec.*")
def test_options_win_over_the_file_and_the_file_over_defaults(generators: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        f'data = "{generators}"\nepochs = 7\nbatch_size = 4\nlr = 0.003\nseed = 5\nworkers = 0\nequalise = "off"\n'
        '[options]\ndim = 4\nprototypes = 2\n[preprocess]\nmode = "crop"\nsize = 40\n[augment]\nflip = false\n'
    )
    done = run_train("--config", path, "--epochs", 1, "--prototypes", 3, "--runs", tmp_path / "runs", "--blur", 0.25)
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "runs").iterdir()
    config = load_config(folder / "config.toml")
    assert isinstance(config, LoopConfig)
    assert (config.epochs, config.options, config.augment.blur) == (1, {"dim": 4, "prototypes": 3}, 0.25)
    assert (config.lr, config.seed, config.equalise, config.augment.flip) == (0.003, 5, "off", False)
    assert config.preprocess["size"] == 40


def test_a_config_beside_resume_or_for_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('model = "asrnet-lite"\nridge = 1.0\n')
    done = run_train("--config", path, "--resume", tmp_path)
    assert (done.exit_code, "--config: a resumed run keeps its own configuration" in done.output) == (2, True)
    done = run_train("--config", path, "--model", "asrnet")
    assert (done.exit_code, "unknown key 'ridge' for asrnet" in done.output) == (2, True), done.output
