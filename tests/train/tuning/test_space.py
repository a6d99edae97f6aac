"""Search spaces: what a trial may choose, and the configuration that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from asr_runtime.errors import ConfigurationError
from asr_train.fitting.config import LoopConfig, recipe
from asr_train.tuning.space import CLOSED_FORM, LOOP, Choice, Range, configured, default_choices, read_space, suggest


@pytest.mark.parametrize(("model", "space"), [("asrnet-lite", CLOSED_FORM), ("asrnet", LOOP), ("fft-resnet18", LOOP)])
def test_the_recipe_is_in_the_space_and_is_what_comes_of_it(model: str, space: dict[str, Choice | Range]) -> None:
    chosen = default_choices(model, [model], space, {})
    assert chosen is not None
    config = configured(suggest(optuna.trial.FixedTrial(chosen), [model], space), {})
    plain = recipe(model)
    assert (config.augment, config.preprocess) == (plain.augment, plain.preprocess)
    used = {key: value for key, value in plain.options.items() if key in config.options}
    assert {key: config.options[key] for key in used} == used
    for name in set(space) & {"ridge", "plain_weight", "lr", "weight_decay", "label_smoothing"}:
        assert getattr(config, name) == getattr(plain, name)


def test_every_choice_of_the_spaces_makes_a_network_that_trains() -> None:
    for models, space in ((["asrnet-lite"], CLOSED_FORM), (["asrnet", "fft-resnet18"], LOOP)):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        seen = set()
        for _ in range(40):
            trial = study.ask()
            config = configured(suggest(trial, models, space), {"preprocess": {"size": 64}})
            assert config.preprocess["size"] == 64
            seen |= set(trial.params)
        assert set(space) <= seen


def test_a_trial_chooses_only_what_its_network_has() -> None:
    fixed = {"model": "asrnet", "options.dim": "8", "lr": 0.01, "strength": 2.0}
    space = {"options.dim": Choice((8,)), "options.spectrum": Choice(("patch",)), "lr": Range(1e-3, 1e-1, log=True)}
    models = ["asrnet", "fft-resnet18"]
    chosen = suggest(optuna.trial.FixedTrial(fixed), models, {**space, "strength": Range(0.0, 2.0)})
    assert chosen == {"model": "asrnet", "options.dim": 8, "lr": 0.01, "strength": 2.0}
    config = configured(chosen, {"epochs": 2, "options": {"spectrum": "patch"}, "augment": {"blur": 0.4}})
    assert isinstance(config, LoopConfig)
    assert (config.epochs, config.lr, config.options) == (2, 0.01, {"dim": 8})
    assert (config.augment.blur, config.augment.noise, config.augment.reencode) == (0.8, 0.2, 1.0)


def test_activations_and_correlations_stay_within_the_blocks() -> None:
    config = configured({"model": "asrnet-lite", "options.blocks": 7, "options.activations": [3, 11]}, {})
    assert config.options == {"blocks": 7, "activations": [3, 6]}
    config = configured({"model": "asrnet-lite", "options.blocks": 3, "options.correlations": 5}, {})
    assert config.options == {"blocks": 3, "correlations": 3}


def test_a_space_is_read(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('"options.scales" = [[1], [1, 2]]\nridge = { low = 0.01, high = 1, log = true }\n')
    assert read_space(path, ["asrnet-lite"]) == {
        "options.scales": Choice(([1], [1, 2])),
        "ridge": Range(0.01, 1, log=True),
    }


@pytest.mark.parametrize(
    "value",
    ["1", "[]", "{low = 1}", "{low = 0, high = 1, log = true}", "{low = 2, high = 1}", "{low = 1, high = 2, step = 1}"],
)
def test_an_entry_that_is_no_space_is_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(f"ridge = {value}\n")
    with pytest.raises(ConfigurationError, match=r"space\.toml: ridge: expected a list of values, or low, high"):
        read_space(path, ["asrnet-lite"])


def test_a_setting_that_no_network_has_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('"options.dim" = [1]\n')
    assert read_space(path, ["asrnet-lite", "asrnet"]) == {"options.dim": Choice((1,))}
    with pytest.raises(ConfigurationError, match=r"'options.dim' is no setting of asrnet-lite; expected some of"):
        read_space(path, ["asrnet-lite"])


def test_a_recipe_outside_the_space_is_not_tried_first() -> None:
    assert default_choices("asrnet-lite", ["asrnet-lite"], {"ridge": Range(0.5, 1.0)}, {}) is None
    narrow = {"options.scales": Choice(([2],))}
    assert default_choices("asrnet-lite", ["asrnet-lite"], narrow, {}) is None
    assert default_choices("asrnet-lite", ["asrnet-lite"], {"options.scales": Choice(([1],))}, {}) == {
        "options.scales": json.dumps([1])
    }
