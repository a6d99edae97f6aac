"""The command lines people script against: every option of every command, both spellings of a flag."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from asr_runtime.command import command

_SURFACE = {
    "asr-audit": "--data -h --help --json --labels-by-position --layout --version",
    "asr-bench": "--against --batch --checkpoint --end-to-end --engine -h --help --loader --looks -o --output --part "
    "--quality --quick --rounds --suite --threads --version --workers",
    "asr-collect": "--clone-from -h --help -o --output --snapshots --source --version",
    "asr-composite": "--data -h --help --layout --most -o --output --side --split --version --weights --with",
    "asr-doctor": "--format -h --help --model --version",
    "asr-evaluate": "--batch-size --checkpoint --content-data --data --degrade --device --equalise --families "
    "-h --help --labels-by-position --layout --leave-out --look --model --reencoding-shift "
    "--regions --report --robustness --spectrum --split --version --workers",
    "asr-export": "--calibration-images --card --fft -h --help --images --metrics --model -o --output --precision "
    "--quick-look --spectrum --triton --version",
    "asr-parity": "--engine -h --help --images --model --report --spectrum --version",
    "asr-register": "-h --help --name --report --version",
    "asr-resynthesise": "--data -h --help --layout -o --output --side --split --version --weights --with --workers",
    "asr-screen": "--annotate --chunk --claims --deadline --device --duration --evidence --folders-in-list --format "
    "--fps -h --help --isolate --jobs "
    "--key-frames --look --metrics --model --mqtt --no-reconnect -o --output --precision --ray --reconnect --sha256 "
    "--snapshots --sources --state --threads --token-file --trust-anchors --version --view --watch --webhook --windows",
    "asr-serve": "--allow-host --browser-demo --device -h --help --host --max-pixels --max-size --model --open --port "
    "--precision --queue --sha256 --time-limit --token-file --trust-anchors --version --workers",
    "asr-shards": "--data -h --help --labels-by-position --layout --leave-out -o --output --seed "
    "--shard-size --version",
    "asr-tune": "--at-least --compare --config --data --families -h --help --jobs --judge --margin --model --most-macs "
    "--name -o --output --seed --space --study --trials --version --warmup",
    "asr-train": "--accumulate --activations --amp --balance --batch-size --blocks --blur --clip --config "
    "--correlations --crop-size --data --degrade --devices --dim --edit --epoch-size --epochs --equalise --families "
    "--flip --freeze --front-end "
    "-h --help --history --label-smoothing --labels-by-position --layout --leave-out --lr --model --monitor --no-flip "
    "--no-freeze --nodes --noise --pair-weight --pairs "
    "--patch --patch-mask --patience --per-source --plain-weight --preprocess --prototypes --protocol --quality "
    "--reencode --resize --resume --ridge --rotation --runs --save-every --scales --schedule --seed --spectrum "
    "--strategy --threads --top --tracker --tracking-uri --version --views --warmup-epochs --weight-decay --weights "
    "--windows --workers",
}


def _commands() -> dict[str, click.Command]:
    points = metadata.entry_points(group="console_scripts")
    return {p.name: p.load() for p in points if p.name.startswith("asr-")}


def test_the_options_are_pinned() -> None:
    surface = {}
    for name, made in _commands().items():
        context = click.Context(made, info_name=name, **made.context_settings)
        options = [o for p in made.get_params(context) for o in (*p.opts, *p.secondary_opts) if o.startswith("-")]
        surface[name] = sorted(options, key=lambda o: o.lstrip("-"))
    assert surface == {name: sorted(text.split(), key=lambda o: o.lstrip("-")) for name, text in _SURFACE.items()}


@pytest.mark.parametrize("name", sorted(_SURFACE))
def test_help_and_version_answer(name: str) -> None:
    made = _commands()[name]
    assert CliRunner().invoke(made, ["--help"], prog_name=name).output.startswith(f"Usage: {name}")
    assert metadata.version("asrnet-edge") in CliRunner().invoke(made, ["--version"], prog_name=name).output


def test_the_help_of_training_shows_the_options_of_the_network() -> None:
    options = {"asrnet": "--dim", "asrnet-lite": "--ridge", "fft-resnet34": "--spectrum"}
    for model, own in options.items():
        shown = CliRunner().invoke(_commands()["asr-train"], ["--help", "--model", model]).output
        assert [option for option in options.values() if option in shown] == [own]
    refused = CliRunner().invoke(_commands()["asr-train"], ["--model", "resnet34", "--help"])
    assert refused.exit_code == 2
    assert "such as fft-resnet34" in refused.output


def test_ctrl_c_ends_a_command_with_one_line() -> None:
    @command("asr-test")
    def interrupted() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(interrupted)
    assert (result.exit_code, result.output) == (130, "asr-test: stopped by SIGINT\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("output", ["/dev/full", "&-"])
def test_what_cannot_be_printed_ends_a_command_with_one_line(option: str, output: str) -> None:
    code = "from asr_runtime.cli import doctor_command; doctor_command(prog_name='asr-doctor')"
    line = ["sh", "-c", f'exec "$@" >{output}', "sh", sys.executable, "-c", code, option]
    done = subprocess.run(line, capture_output=True, check=False)
    reason = "No space left on device" if output == "/dev/full" else "Bad file descriptor"
    assert (done.returncode, done.stderr.decode()) == (
        3,
        f"asr-doctor: standard output: cannot be written ({reason})\n",
    )


def test_an_error_of_the_system_that_is_not_about_the_output_is_not_hidden() -> None:
    @command("asr-test")
    def broken() -> None:
        raise FileNotFoundError(2, "No such file", "x")

    assert isinstance(CliRunner().invoke(broken).exception, FileNotFoundError)


def test_underscores_and_hyphens_are_the_same(tmp_path: Path) -> None:
    train = _commands()["asr-train"]
    for spelling in ("--batch_size", "--batch-size"):
        result = CliRunner().invoke(train, [spelling, "0", "--data", str(tmp_path)])
        assert "batch_size 0: expected a number above 0" in result.output


@pytest.mark.parametrize(
    ("module", "missing", "message"),
    [
        ("asr_train.cli", "torch", "asr-x: torch is not installed; pip install 'asrnet-edge[train]'"),
        ("asr_train.cli", "lightning", "asr-x: lightning is not installed; pip install 'asrnet-edge[train]'"),
        ("asr_export.cli", "onnx", "asr-x: onnx is not installed; pip install 'asrnet-edge[export]'"),
        ("asr_bench.cli", "torch", "asr-x: torch is not installed; pip install 'asrnet-edge[bench]'"),
        ("asr_train.commands.tune", "optuna", "asr-x: optuna is not installed; pip install 'asrnet-edge[tune]'"),
        ("asr_train.commands.tune", "torch", "asr-x: torch is not installed; pip install 'asrnet-edge[tune]'"),
        ("asr_runtime.serve.cli", "fastapi", "asr-x: fastapi is not installed; pip install 'asrnet-edge[serve]'"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it(module: str, missing: str, message: str) -> None:
    code = f"import sys; sys.argv[0] = '/bin/asr-x'; sys.modules[{missing!r}] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, message, "")


def test_a_missing_system_library_is_one_line_and_other_import_errors_are_not_hidden() -> None:
    @command("asr-x")
    @click.argument("problem")
    def fails(problem: str) -> None:
        raise ImportError(problem)

    missing = CliRunner().invoke(fails, ["libGL.so.1: cannot open shared object file: No such file or directory"])
    assert (missing.exit_code, missing.output.count("\n")) == (2, 1)
    assert "apt-get install libgl1" in missing.output
    assert isinstance(CliRunner().invoke(fails, ["cannot import name"]).exception, ImportError)
