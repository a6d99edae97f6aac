"""asr-bench --suite: parts in turn, results of one kind of machine, what changed since earlier ones."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr_bench import suite
from asr_bench.cli import bench_command
from asr_bench.energy import Rapl
from asr_bench.figures import Figure
from asr_bench.suite import run_suite
from asr_bench.suite_parts import PARTS, Part
from asr_bench.suite_report import suite_markdown, suite_svg
from asr_bench.suite_results import PartResult, Suite, earlier_suite, machine_kind, read_suite
from asr_runtime.errors import ConfigurationError


def _bench(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(bench_command, ["--suite", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_parts_take_turns_and_leave_json_tables_and_pictures(tmp_path: Path) -> None:
    line = ("--quick", "--rounds", 2, "--part", "batching", "--part", "folders", "-o", tmp_path)
    code, printed, progress = _bench(*line)
    assert code == 0, progress
    order = [line.split()[6] for line in progress.splitlines() if line.startswith("round")]
    assert order == ["asr_bench.batching", "asr_bench.folder"] * 2
    parts = read_suite(tmp_path / f"{machine_kind()}.json").parts
    assert {len(figure.samples) for part in parts.values() for figure in part.figures} == {2}
    assert [len(part.seconds) for part in parts.values()] == [2, 2]
    assert parts["batching"].versions["onnxruntime"] != "none"
    pictures = sorted(path.name for path in (tmp_path / machine_kind()).iterdir())
    assert pictures == ["batching.svg", "folders.svg"]
    assert "| asrnet-lite-tiny, 8 in one inference: a picture |" in printed
    assert "energy" in printed


def test_a_run_that_is_stopped_keeps_the_rounds_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _suite("m", 1.0).parts["start"]
    rounds = iter([done, KeyboardInterrupt()])

    def one(*_: object) -> PartResult:
        result = next(rounds)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(suite, "_round", one)
    code, _, messages = _bench("--part", "start", "-o", tmp_path)
    assert (code, "stopped by SIGINT" in messages) == (130, True)
    assert read_suite(tmp_path / f"{machine_kind()}.json").parts == {"start": done}


def test_energy_of_a_round_is_that_of_the_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "energy_uj").write_text("1000000")
    (package / "max_energy_range_uj").write_text("9000000")
    code = f"import pathlib; pathlib.Path({str(package / 'energy_uj')!r}).write_text('3000000');"
    code += "from asr_bench.figures import *; from asr_bench.batching import BatchCosts;"
    code += "write_figures([BatchCosts('m', {1: [1.0]})], pathlib.Path('figures.json'))"
    monkeypatch.setitem(PARTS, "batching", Part("of a test", f'python -c "{code}"', ""))
    monkeypatch.setattr(suite, "Rapl", lambda: Rapl(tmp_path))
    part = run_suite(["batching"], 1).parts["batching"]
    assert part.joules == (2.0,), part.problem
    assert "2 J a round, all cores" in suite_markdown(Suite("m", {"batching": part}))


def test_a_part_that_fails_or_lacks_its_equipment_says_so_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Part("of a test", "python -m asr_bench.folder nowhere", "python -m asr_bench.folder nowhere")
    monkeypatch.setitem(PARTS, "start", broken)
    monkeypatch.setitem(PARTS, "costs", dataclasses.replace(broken, needs=("no-such-program",)))
    line = ("--quick", "--rounds", 1, "--part", "start", "--part", "costs", "--part", "batching")
    code, printed, progress = _bench(*line)
    assert code == 1
    assert "failed: " in printed
    assert "'nowhere' does not exist" in printed
    assert "left out: no-such-program is not installed" in printed
    assert "asr_bench.batching --model" in printed, progress


def _suite(machine: str, *samples: float) -> Suite:
    figures = (Figure("a start", "s", False, samples), Figure("dropped", "frames", False, (0.0,)))
    return Suite(
        machine, {"start": PartResult("starts", "python -m x", "2026-01-01", {}, (0.1,), (1.0,), None, figures)}
    )


def test_changes_are_judged_by_direction_spread_and_number_of_samples() -> None:
    before = _suite("m", 1.0, 1.01, 0.99, 1.0)
    assert re.search(r"\| 0\.50x \(0\.\d+ to 0\.\d+\), better", suite_markdown(_suite("m", 0.5, 0.5, 0.5), before))
    assert re.search(r"\| 2\.00x \([12]\.\d+ to 2\.\d+\), worse", suite_markdown(_suite("m", 2.0, 2.0, 2.0), before))
    assert "no change beyond noise" in suite_markdown(_suite("m", 0.9, 1.0, 1.1), before)
    assert "0.50x, too few samples to judge" in suite_markdown(_suite("m", 0.5), before)
    assert "| 0 | +0 frames |" in suite_markdown(_suite("m", 0.5), before)
    assert "new" in suite_markdown(_suite("m", 0.5), Suite("m", {"start": PartResult("", "")}))


def test_a_run_of_chosen_parts_leaves_the_others_in_the_file(tmp_path: Path) -> None:
    path = _suite("a machine, 2 cores", 1.0).write(tmp_path)
    assert path.name == "a-machine-2-cores.json"
    only = Suite("a machine, 2 cores", {"costs": PartResult("costs", "python -m y", problem="left out")})
    assert list(read_suite(only.write(tmp_path)).parts) == ["start", "costs"]
    assert read_suite(path).parts["start"] == _suite("", 1.0).parts["start"]


def test_results_of_another_machine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"no result of this kind of machine; expected {machine_kind()}"):
        earlier_suite(tmp_path)
    other = _suite("another, 64 cores", 1.0).write(tmp_path)
    with pytest.raises(ConfigurationError, match="measured on another, 64 cores"):
        earlier_suite(other)
    shutil.copy(other, tmp_path / f"{machine_kind()}.json")
    with pytest.raises(ConfigurationError, match="expected a result of the same kind"):
        earlier_suite(tmp_path)
    other.write_text("[]")
    with pytest.raises(ConfigurationError, match="expected a file that asr-bench --suite -o DIR wrote"):
        read_suite(other)


def test_a_picture_shows_every_figure_and_the_earlier_samples() -> None:
    part = _suite("m", 1.0, 2.0).parts["start"]
    assert suite_svg(part) == suite_svg(part)
    assert "a start" in suite_svg(part)
    assert "#888888" in suite_svg(part, part)
    assert "#888888" not in suite_svg(part)


def test_every_command_of_the_suite_is_one_that_exists() -> None:
    for part in PARTS.values():
        for command in (part.command, part.quick):
            program, *rest = suite._arguments(command)
            assert program == sys.executable
            if rest[0] == "-m":
                assert (Path(suite.__file__).parent / f"{rest[1].removeprefix('asr_bench.')}.py").exists()


def test_options_of_the_suite_need_it() -> None:
    done = CliRunner().invoke(bench_command, ["--part", "start"])
    assert (done.exit_code, "belong to --suite" in done.output) == (2, True)
    code, _, messages = _bench("x.onnx")
    assert (code, "--suite runs alone" in messages) == (2, True)
