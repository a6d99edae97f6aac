"""asr-tune on a handful of pictures: studies are continued, run by two processes, ended early, compared, and shown."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner, Result

from asr_train.cli import train_command
from asr_train.commands.tune import tune_command
from asr_train.figures.plots import plot_front
from asr_train.fitting.config_file import load_config
from asr_train.tuning.page import importances
from asr_train.tuning.study import _hopeless

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of lightning and tensorboard
    "ignore:.*LeafSpec.*",
    "ignore:.*lr_scheduler.step.*before.*optimizer.step.*",
)

FAMILIES = "source,label,family,year\nmidjourney,1,Midjourney,2023\nsd3,1,Stable Diffusion 3,2024\nphotos,0,photo,\n"
SPACE = """
"options.scales" = [[1]]
"options.blocks" = { low = 2, high = 4 }
"options.activations" = ["none", [0, 1]]
strength = [1.0]
plain_weight = { low = 0.0, high = 0.9 }
ridge = { low = 0.001, high = 1.0, log = true }
"""
BASE = 'workers = 0\nviews = 1\nbatch_size = 4\n[preprocess]\nmode = "crop"\nsize = 48\n'


def _files(folder: Path, data: Path, base: str = BASE, space: str = SPACE) -> list[object]:
    folder.mkdir(exist_ok=True)
    for name, text in (("base.toml", base), ("space.toml", space), ("families.csv", FAMILIES)):
        (folder / name).write_text(text)
    paths = {f"--{name}": folder / f"{file}" for name, file in
             (("config", "base.toml"), ("space", "space.toml"), ("families", "families.csv"))}  # fmt: skip
    return ["--data", data, "--at-least", 4, "-o", folder / "study", *[x for pair in paths.items() for x in pair]]


def _tune(*args: object) -> Result:
    return CliRunner().invoke(tune_command, [*map(str, args)])


def _study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="asr-tune", storage=f"sqlite:///{folder / 'study' / 'study.db'}")


@pytest.fixture(scope="module")
def closed(pristine_generators: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    """A folder with a finished study of 6 trials, and its options without the number of trials."""
    folder = tmp_path_factory.mktemp("tune")
    options = [*_files(folder, pristine_generators), "--judge", "Midjourney"]
    done = _tune(*options, "--trials", 6, "--margin", 0, "--compare", 42, "--compare", 43)
    assert done.exit_code == 0, done.output
    return folder, options


def test_a_study_starts_with_the_recipe_and_its_best_configuration_trains(
    closed: tuple[Path, list[object]], tmp_path: Path
) -> None:
    folder, _ = closed
    study = _study(folder)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    best = max(study.trials, key=lambda trial: trial.values[0])
    assert best.user_attrs["figures"] == {"Midjourney": best.values[0]}
    config = load_config(folder / "study" / "best.toml")
    params = {key: json.loads(value) if isinstance(value, str) else value for key, value in best.params.items()}
    assert config.options["blocks"] == params["options.blocks"]
    assert vars(config)["ridge"] == params["ridge"]
    done = CliRunner().invoke(
        train_command, ["--config", str(folder / "study" / "best.toml"), "--runs", str(tmp_path / "runs")]
    )
    assert done.exit_code == 0, done.output
    (run,) = tmp_path.glob("runs/run-*")
    assert load_config(run / "config.toml") == config


def test_the_cost_is_that_of_the_network(closed: tuple[Path, list[object]]) -> None:
    costs = {trial.params["options.blocks"]: trial.values[1] for trial in _study(closed[0]).trials}
    assert len(costs) > 1
    assert [costs[key] for key in sorted(costs)] == sorted(costs.values())


def test_the_page_loads_nothing_and_shows_every_trial(closed: tuple[Path, list[object]]) -> None:
    page = (closed[0] / "study" / "study.html").read_text(encoding="utf-8")
    loaded: list[str] = []

    class _Loaded(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loaded.extend(
                value for key, value in attrs if key in ("src", "href") and value and not value.startswith("#")
            )

    _Loaded().feed(page)
    assert loaded == []
    assert re.findall(r"url\([\"']?https?:|@import", page) == []
    assert page.count("<tr") > 6 + 2
    assert 'aria-label="Figure and cost of the trials"' in page
    assert "families that judged none, mean" in page  # Stable Diffusion 3 judged no trial
    for trial in _study(closed[0]).trials:
        assert f"<td>{trial.number}</td>" in page


@pytest.mark.heavy
def test_the_same_command_goes_on_and_another_search_is_refused(closed: tuple[Path, list[object]]) -> None:
    folder, options = closed
    before = [trial.params for trial in _study(folder).trials]
    done = _tune(*options, "--trials", 8, "--jobs", 2)
    assert done.exit_code == 0, done.output
    trials = _study(folder).trials
    assert [trial.params for trial in trials][:6] == before
    assert sum(trial.state.is_finished() for trial in trials) in (8, 9)  # two processes may both begin the last one
    other = _tune(*options[:-1], "Stable Diffusion 3", "--trials", 9)
    assert (other.exit_code, "was begun with another judged; give --name" in other.output) == (2, True), other.output


def test_importances_say_that_blocks_make_the_cost(closed: tuple[Path, list[object]]) -> None:
    trials = _study(closed[0]).trials
    assert importances(_study(closed[0])) == {} or len(trials) >= 8
    many = optuna.create_study(directions=["maximize", "minimize"])
    shown = optuna.distributions.IntDistribution(2, 9), optuna.distributions.FloatDistribution(0.0, 1.0)
    for n in range(16):
        params = {"options.blocks": 2 + n % 8, "ridge": (n * 7 % 16) / 16}
        spaces = dict(zip(params, shown, strict=True))
        values = [params["ridge"], float(params["options.blocks"])]
        many.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, values=values))
    shares = importances(many)
    assert shares["cost"]["options.blocks"] > 0.8
    assert shares["figure"]["ridge"] > 0.8


@pytest.mark.parametrize(
    ("macs", "shown"),
    [((5.5e6, 1.8e8), {"0.005", "0.01", "0.02", "0.05", "0.1", "0.2"}), ((1.5e8, 1.5e8), {"0.1", "0.2"})],
)
def test_the_axis_of_costs_has_few_labels_and_at_least_one(macs: tuple[float, float], shown: set[str]) -> None:
    page = plot_front([(macs[0], 0.5), (macs[1], 0.45)], [0], 0, 1)
    texts = re.findall(r">([^<>]+)</text>", page)
    assert shown == set(texts[: texts.index("multiply-adds of one crop, in thousand millions")])


def test_a_trial_that_a_cheaper_one_beats_ends_early() -> None:
    def finished(macs: float, value: float) -> optuna.trial.FrozenTrial:
        return optuna.trial.create_trial(value=value, user_attrs={"macs": macs, "steps": {"a": value, "b": value}})

    done = [finished(10, 0.8)]
    assert _hopeless({"a": 0.9, "b": 0.7}, 10, done, 0.05)
    assert not _hopeless({"a": 0.9, "b": 0.76}, 10, done, 0.05)  # within the margin
    assert not _hopeless({"a": 0.9, "b": 0.7}, 9, done, 0.05)  # cheaper than the one that is better
    assert not _hopeless({"c": 0.1}, 10, done, 0.05)


@pytest.mark.heavy
def test_a_loop_is_searched_and_a_killed_search_goes_on(pristine_generators: Path, tmp_path: Path) -> None:
    base = 'workers = 0\nepochs = 2\nbatch_size = 4\nepoch_size = 8\n[preprocess]\nmode = "crop"\nsize = 32\n'
    space = '"options.dim" = [4, 8]\n"options.spectrum" = ["global", "patch"]\nlr = { low = 1e-4, high = 1e-2 }\n'
    options = [*_files(tmp_path, pristine_generators, base, space), "--model", "asrnet", "--model", "fft-resnet18"]
    options += ["--judge", "Midjourney", "--warmup", 1]
    source = "import sys; from asr_train.commands.tune import tune_command as c; c()"
    command = [sys.executable, "-c", source, *map(str, options), "--trials", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        progress = next(line for line in process.stderr if "trial 1 " in line)
        process.send_signal(signal.SIGKILL)
    assert "G multiply-adds" in progress
    before = _study(tmp_path)
    finished = sum(trial.state.is_finished() for trial in before.trials)
    done = _tune(*options, "--trials", finished + 2)
    assert done.exit_code == 0, done.output
    study = _study(tmp_path)
    assert sum(trial.state.is_finished() for trial in study.trials) == finished + 2
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert complete
    for trial in complete:
        assert list(trial.user_attrs["steps"]) == ["epoch 1", "epoch 2"]
        assert ("options.dim" in trial.params) == (trial.params["model"] == "asrnet")
    assert load_config(tmp_path / "study" / "best.toml").preprocess["size"] == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge", "DALL-E"], "--judge DALL-E: expected one of Midjourney, Stable Diffusion 3"),
        (["--model", "asrnet", "--model", "asrnet-lite"], "solved in closed form and judged otherwise"),
        (["--at-least", 100], "no family with 100 validation images"),
        (["--study", "nosuch://place"], "no study can be kept there"),
        (["--study", "/dev/null/place.db"], "no study can be kept there"),
        (["--most-macs", 10, "--trials", 1], "none of 1 finished trials has a network that costs at most 10"),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    pristine_generators: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    done = _tune(*_files(tmp_path, pristine_generators), *options)
    assert done.exit_code == 2, done.output
    assert message in done.output.splitlines()[-1], done.output


def test_families_are_needed(pristine_generators: Path, tmp_path: Path) -> None:
    done = _tune("--data", pristine_generators, "-o", tmp_path / "x")
    assert (done.exit_code, "asr-tune needs --families FILE" in done.output) == (2, True), done.output
    assert not (tmp_path / "x").exists()
