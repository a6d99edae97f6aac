"""Mutation run: which small faults in a module do its own fast tests notice?  `make mutants` runs it.

cosmic-ray makes the mutants: it changes one operator, number, condition, loop or handler of a module at a time. Each
mutant is run against the tests of its module alone. A fork of a process that has loaded PyTorch and the like runs them,
because loading takes longer than most of these tests. Where a module has more mutants than `--sample`, a random sample
with a fixed seed is run. Mutants that an earlier run tried on the same version of the module are not run again.

    python tests/mutants.py                       all modules
    python tests/mutants.py ridge smoothing       some, by file name
    python tests/mutants.py ridge --mutant 17     one mutant, with the output of its tests

Results go to build/mutants/NAME.json, and a table to stdout.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "mutants"
SEED = 15
MODULES = {
    "runtime/asr_runtime/contract.py": "tests/runtime/test_contract.py",
    "runtime/asr_runtime/screening/smoothing.py": "tests/runtime/screening/test_smoothing.py",
    "runtime/asr_runtime/screening/screen.py": "tests/runtime/screening/test_screen.py",
    "runtime/asr_runtime/screening/feed.py": (
        "tests/runtime/screening/test_feed.py tests/runtime/screening/test_screen.py "
        "tests/runtime/screening/test_parallel.py"
    ),
    "runtime/asr_runtime/screening/scorer.py": (
        "tests/runtime/screening/test_scorer.py tests/runtime/screening/test_screen.py"
    ),
    "runtime/asr_runtime/cameras/camera.py": "tests/runtime/cameras/test_camera.py",
    "train/asr_train/figures/metrics.py": "tests/train/figures/test_metrics.py",
    "train/asr_train/figures/bootstrap.py": "tests/train/figures/test_metrics.py",
    "train/asr_train/figures/calibrate.py": "tests/train/figures/test_calibrate.py",
    "train/asr_train/fitting/ridge.py": "tests/train/fitting/test_ridge.py",
    "train/asr_train/protocols/folds.py": "tests/train/protocols/test_folds.py",
    "train/asr_train/protocols/leave_out.py": (
        "tests/train/protocols/test_leave_out.py tests/train/protocols/test_folds.py "
        "tests/train/fitting/test_closed_form.py -k 'not closed_form or protocol or judged or resynthesiser'"
    ),
    "train/asr_train/protocols/leave_families_out.py": "tests/train/protocols/test_leave_families_out.py",
    "export/asr_export/parity.py": (
        "tests/export/test_parity.py -k 'hand or flips or tolerance or nan or named or explained or awkward or jpeg_96'"
    ),
}
"""Module -> its tests."""

_PAIRS = (
    "Add_Sub",
    "Sub_Add",
    "Mul_Div",
    "Div_Mul",
    "FloorDiv_Mul",
    "Mod_Mul",
    "Pow_Mul",
    "BitAnd_BitOr",
    "BitOr_BitAnd",
)
_COMPARISONS = ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "GtE_Lt", "Gt_LtE", "LtE_Gt")
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{pair}" for pair in _PAIRS),
    *(f"core/ReplaceComparisonOperator_{pair}" for pair in (*_COMPARISONS, "Is_IsNot", "IsNot_Is")),
    *("core/ReplaceUnaryOperator_Delete_USub", "core/ReplaceUnaryOperator_Delete_Not", "core/AddNot"),
    *("core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue", "core/ReplaceAndWithOr", "core/ReplaceOrWithAnd"),
    *("core/ReplaceBreakWithContinue", "core/ReplaceContinueWithBreak", "core/ZeroIterationForLoop"),
    *("core/ExceptionReplacer", "core/NumberReplacer", "core/RemoveDecorator"),
)
_LOADED_ONCE = ("torch", "scipy.stats", "sklearn.linear_model", "sklearn.metrics", "cv2", "hypothesis", "click", "rich")
_SOURCES = ("models", "train", "export", "runtime", "bench", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One changed module; `number` counts all mutants of the module."""

    number: int
    operator: str
    line: int
    before: str
    after: str
    code: str


def places_of(path: Path) -> list[tuple[str, int]]:
    """Return every (operator, place) of a module, in the random order in which they are tried."""
    tree = get_ast(path.read_text())
    places = []
    for name in OPERATORS:
        operator = get_operator(name)()
        count = sum(len(list(operator.mutation_positions(node))) for node in _nodes(tree))
        places += [(name, place) for place in range(count)]
    random.Random(SEED).shuffle(places)
    return places


def mutants_of(path: Path, chosen: Collection[int] | None = None) -> Iterator[Mutant]:
    """Yield every mutant that differs from the module in more than annotations, each once; or those of some numbers."""
    source = path.read_text()
    seen = {_meaning(source)}
    for number, (name, place) in enumerate(places_of(path)):
        if chosen is not None and number not in chosen:
            continue
        code = mutate_code(source, get_operator(name)(), place)
        try:
            meaning = _meaning(code)
        except SyntaxError:  # `not` before an assignment expression
            continue
        if meaning in seen:
            continue
        seen.add(meaning)
        old, new = source.splitlines(), code.splitlines()
        changes = [c for c in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if c[0] != "equal"]
        first, last, start, end = changes[0][1], changes[-1][2], changes[0][3], changes[-1][4]
        before, after = (" ".join(line.strip() for line in part) for part in (old[first:last], new[start:end]))
        yield Mutant(number, name.removeprefix("core/"), first + 1, before, after, code)


def _nodes(node: NodeOrLeaf) -> Iterator[NodeOrLeaf]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _meaning(code: str) -> str:
    """Return a text that differs only where the behaviour may: without annotations, __all__ and documentation."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            node.annotation = ast.Name("object")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


class Workers:
    """Runs mutants, each in a fork of this process, on copies of the repository."""

    def __init__(self, folder: Path, count: int) -> None:
        self.copies = [folder / str(number) for number in range(count)]
        for copy in self.copies:
            for name in _SOURCES:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, copy / name)

    def start(self, copy: Path, module: str, code: str, tests: list[str], log: Path) -> int:
        """Write a mutant into a copy and run tests there; returns the process's id."""
        (copy / module).write_text(code)
        if process := os.fork():
            return process
        os.setsid()
        with log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.chdir(copy)
        folders = [str(copy / name) for name in ("models", "train", "export", "runtime", "bench")]
        sys.path[:0] = folders
        os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        code_of_tests = 3
        try:
            options = [
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "--assert=plain",
                "-m",
                "not heavy",
                f"--basetemp={copy / 'temporary'}",
            ]
            code_of_tests = int(pytest.main([*options, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code_of_tests)


def ended(process: int, deadline: float) -> int | None:
    """Return the exit status of a process, 124 after its deadline, None while it runs."""
    done, status = os.waitpid(process, os.WNOHANG)
    if done:
        _end(process)
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() < deadline:
        return None
    _end(process)
    os.waitpid(process, 0)
    return 124


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def run_module(workers: Workers, module: str, sample: int, minutes: float, survivors: bool) -> dict[str, Any]:
    """Run the mutants of a module that were not run yet, or once more those that survived; results go to a file.

    Raises:
        SystemExit: its tests fail without any change.
    """
    tests, path = shlex.split(MODULES[module]), ROOT / module
    kept, version = BUILD / f"{path.stem}.json", sha256(path.read_bytes()).hexdigest()
    result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if result.get("sha256") != version:
        result = {"module": module, "sha256": version, "places": len(places_of(path)), "results": {}}
    tried = result["results"]
    if survivors:
        waiting = mutants_of(path, {int(n) for n, one in tried.items() if one["outcome"] == "survived"})
    else:
        waiting = (m for m in islice(mutants_of(path), sample) if str(m.number) not in tried)
    took = _unchanged(workers, module, tests)
    print(f"{module}: {result['places']} places, {took:.1f} s unchanged", file=sys.stderr, flush=True)
    until = time.monotonic() + minutes * 60
    for mutant, status in _statuses(workers, module, tests, waiting, 30 + 4 * took, until):
        outcome = {0: "survived", 124: "timeout"}.get(status, "killed")
        tried[str(mutant.number)] = {**asdict(mutant), "outcome": outcome, "code": None}
        kept.write_text(json.dumps(result, indent=1))
        if outcome == "survived":
            print(f"  {mutant.number:4} line {mutant.line}: {mutant.before}\n{'':10}-> {mutant.after}", flush=True)
    for copy in workers.copies:
        (copy / module).write_text(path.read_text())
    return result


def _unchanged(workers: Workers, module: str, tests: list[str]) -> float:
    """Run the tests of a module as it is; returns the seconds that they take."""
    log, began = BUILD / f"{Path(module).stem}.log", time.monotonic()
    process = workers.start(workers.copies[0], module, (ROOT / module).read_text(), tests, log)
    while (status := ended(process, began + 300)) is None:
        time.sleep(0.05)
    if status:
        output = log.read_text()[-3000:]
        raise SystemExit(f"{module}: its tests fail without any change (exit code {status}):\n{output}")
    return time.monotonic() - began


def _statuses(
    workers: Workers, module: str, tests: list[str], waiting: Iterator[Mutant], longest: float, until: float
) -> Iterator[tuple[Mutant, int]]:
    """Yield each mutant with the exit status of its tests, as they end; none is begun after `until`."""
    free, more = list(workers.copies), True
    running: dict[int, tuple[Path, Mutant, float]] = {}
    while running or more:
        while free and more:
            mutant = next(waiting, None) if time.monotonic() < until else None
            if mutant is None:
                more = False
                break
            copy = free.pop()
            process = workers.start(copy, module, mutant.code, tests, copy / "tests.log")
            running[process] = copy, mutant, time.monotonic() + longest
        for process, (copy, mutant, deadline) in list(running.items()):
            if (status := ended(process, deadline)) is not None:
                del running[process]
                free.append(copy)
                yield mutant, status
        time.sleep(0.02)


def run_one(workers: Workers, module: str, number: int) -> None:
    """Run one mutant and show what its tests print."""
    mutant = next(mutants_of(ROOT / module, {number}))
    log = BUILD / "one.log"
    process = workers.start(workers.copies[0], module, mutant.code, shlex.split(MODULES[module]), log)
    while (status := ended(process, time.monotonic() + 300)) is None:
        time.sleep(0.05)
    print(f"line {mutant.line}: {mutant.before}\n-> {mutant.after}\n{log.read_text()}\nexit code {status}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="file names without .py; all without any")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=150, help="mutants of a module at most")
    parser.add_argument("--minutes", type=float, default=60, help="time box of a module")
    parser.add_argument("--mutant", type=int, help="run this mutant of one module and show what its tests print")
    parser.add_argument("--survivors", action="store_true", help="run those again that survived the last run")
    asked = parser.parse_args()
    modules = [m for m in MODULES if not asked.modules or Path(m).stem in asked.modules]
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in _LOADED_ONCE:
        importlib.import_module(name)
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        workers = Workers(Path(folder), asked.workers)
        if asked.mutant is not None:
            run_one(workers, modules[0], asked.mutant)
            return
        results = [run_module(workers, m, asked.sample, asked.minutes, asked.survivors) for m in modules]
    print(f"\n{'module':52} {'places':>8} {'run':>5} {'killed':>7} {'survived':>9}")
    for result in results:
        outcomes = [one["outcome"] for one in result["results"].values()]
        survived = outcomes.count("survived")
        print(f"{result['module']:52} {result['places']:8} {len(outcomes):5} {len(outcomes) - survived:7} {survived:9}")


if __name__ == "__main__":
    main()
