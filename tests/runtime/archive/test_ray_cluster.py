"""An archive on a Ray cluster: the same records as asr-screen, each once, whatever is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from live_samples import until
from runtime_samples import Runner, build_model, command_line, encoded, environment, picture

from asr_bench.ray_nodes import nodes, workers
from asr_runtime.archive.inputs import ArchiveInput
from asr_runtime.archive.ledger import Account, Ledger
from asr_runtime.archive.ray_cluster import ChunkTask, _Worker

pytestmark = pytest.mark.heavy


_WITHOUT = """
import sys

class _Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "{package}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

if any(part.endswith("default_worker.py") for part in sys.orig_argv):
    sys.meta_path.insert(0, _Blocked())
"""


def records_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for part in sorted(folder.glob("part-*.jsonl")) for line in part.read_text().splitlines()]


def test_local_cluster_gives_the_records_of_asr_screen(
    run_command: Runner, mixed_folder: Path, clip: Path, model_path: Path, tmp_path: Path
) -> None:
    shutil.copy(clip, mixed_folder / "clip.avi")
    table = tmp_path / "more.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": [str(mixed_folder / "white.png"), "absent.png", None]}), table)
    common = (mixed_folder, "--model", model_path)
    plain = run_command("screen", *common, "--format", "jsonl", "--threads", 1)
    archive = run_command("screen", "--ray", *common, table, f"file://{mixed_folder}/below", "-o", "out", timeout=120)
    assert archive.returncode == plain.returncode == 1, archive.stderr
    *expected, summary = map(json.loads, plain.stdout.splitlines())
    *records, absent, nothing, grey = records_of(tmp_path / "out")
    assert records == expected
    assert [absent["error"], nothing["error"]] == [
        "absent.png: no such file or folder",
        f"{table}, row 2: holds no path",
    ]
    assert (grey["source"], grey["verdict"]) == (f"file://{mixed_folder}/below/grey.bmp", "unsure")
    whole = json.loads((tmp_path / "out" / "summary.json").read_text())
    differs = {name for name in summary if summary[name] != whole[name]}
    assert differs == {"read", "scored", "failed", "seconds"}
    assert (whole["read"], whole["failed"]) == (summary["read"] + 3, summary["failed"] + 2)

    again = run_command("screen", "--ray", *common, "-o", "out")
    assert (again.returncode, again.stderr.decode()) == (
        2,
        "asr-screen: out: holds records of a run with other sources; give another folder, or the same command line as "
        "before to go on\n",
    )


def test_worker_node_and_driver_are_killed_and_every_input_is_there_once(tmp_path: Path) -> None:
    folder, count = tmp_path / "pictures", 1000
    folder.mkdir()
    data = encoded(picture(0, 48, 48), ".png")
    for number in range(count):
        (folder / f"{number:04}.png").write_bytes(data if number % 100 else data[:60])
    (tmp_path / "model.onnx").write_bytes(build_model(work=2))
    out = tmp_path / "out"

    def start(address: str) -> subprocess.Popen[bytes]:
        options = ("-o", out, "--model", tmp_path / "model.onnx", "--chunk", 20)
        line = command_line("screen", f"--ray={address}", folder, *options)
        return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finished() -> int:
        return len(list((out / "done").glob("*.json")))

    with nodes() as cluster:
        with start(cluster.address) as driver:
            until(lambda: finished() >= 3, 90)
            os.kill(workers()[0], signal.SIGKILL)
            before = finished()
            until(lambda: finished() >= before + 5, 60)
            cluster.take_one_away()
            before = finished()
            until(lambda: finished() >= before + 5, 60)
            driver.kill()
            printed, _ = driver.communicate(timeout=30)
            assert (driver.returncode, printed) == (-signal.SIGKILL, b"")  # and no dump of Ray's state
        before = finished()
        assert before < count / 20
        with start(cluster.address) as driver:
            _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1, errors
    assert f"{before * 20} inputs are screened already; going on after them" in errors.decode()
    records = records_of(out)
    assert [record["source"] for record in records] == [str(folder / f"{number:04}.png") for number in range(count)]
    assert sum(record["type"] == "error" for record in records) == 10
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["read"], summary["scored"], summary["failed"]) == (count, count - 10, 10)


def test_an_input_that_ends_its_worker_again_and_again_costs_only_itself(
    tmp_path: Path, model_path: Path, mixed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["white.png", "black.jpg", "below/grey.bmp"]
    ledger = Ledger(str(tmp_path / "out"), "jsonl")
    inputs = [ArchiveInput(name, str(mixed_folder / name), "image") for name in names]
    monkeypatch.setattr(ledger, "chunk", lambda number: inputs)
    task = ChunkTask(str(tmp_path / "out"), "jsonl", str(model_path), None, "cpu", "auto", False, None, 30.0)
    worker = _Worker(task)
    worker._ledger = ledger
    screen = worker._screener.screen

    class DiedError(Exception):
        """Stands for the end of the process."""

    def screen_or_die(items: list[ArchiveInput]) -> object:
        if any(item.name == "black.jpg" and item.kind == "image" for item in items):
            raise DiedError
        return screen(items)

    monkeypatch.setattr(worker._screener, "screen", screen_or_die)
    for _ in range(3):
        with pytest.raises(DiedError):
            worker({"chunk": [0]})
    worker({"chunk": [0]})
    records = records_of(tmp_path / "out")
    assert [record.get("verdict", record.get("error")) for record in records] == [
        "ai",
        "black.jpg: ended the worker that screened it",
        "unsure",
    ]
    assert ledger.finished() == {0: Account(3, 3, 2, 1)}
    assert not list((tmp_path / "out" / "begun").iterdir())
    worker._screener.close()


_BLOCKED = {
    "onnxruntime": r"node \S+: onnxruntime cannot be imported \(.*\): pip install 'asrnet-edge\[cpu\]'.*",
    "asr_runtime": r"--ray: a node of the cluster cannot import asr_runtime; install the same version of .*",
}
"""Package that the workers of a cluster lack -> what is said."""


def test_a_node_without_a_package_is_one_line(
    run_command: Runner, model_path: Path, mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver has the package, and goes on where the workers have it too."""
    line = ("screen", mixed_folder, "--model", model_path, "-o", "out", "--chunk", 1)
    for package, message in _BLOCKED.items():
        blocked = tmp_path / package
        blocked.mkdir()
        (blocked / "sitecustomize.py").write_text(_WITHOUT.format(package=package))
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")]))
            with nodes() as cluster:
                patch.undo()
                refused = run_command(*line, f"--ray={cluster.address}", timeout=120)
        # Notes of Ray's may stand between, and in front of our line: its processes write to the same stream.
        lines = refused.stderr.decode().splitlines()
        said = [line[line.index("asr-screen: ") :] for line in lines if "asr-screen: " in line]
        assert len(said) == 1, lines
        assert all("core_worker" in line or "asr-screen: " in line for line in lines), lines
        assert re.fullmatch(f"asr-screen: {message}", said[0])
        assert refused.returncode == 2
    assert run_command(*line, "--ray=local", timeout=120).returncode == 1  # of a damaged file
    assert len(records_of(tmp_path / "out")) == json.loads((tmp_path / "out" / "summary.json").read_text())["read"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos",), "--ray: expected -o DIR, the folder for the records; every node must reach it"),
        (
            ("photos", "-o", "out", "--isolate"),
            "--isolate: cannot be combined with --ray, which screens files in chunks",
        ),
        (("rtsp://u:secret@h/s", "-o", "out"), "rtsp://***@h/s: --ray screens files; screen live sources without it"),
        (("photos", "-o", "out", "--format", "csv"), "--format csv: with --ray expected jsonl or parquet"),
        (("bad.parquet", "-o", "out"), "bad.parquet: not a table that can be read (Parquet magic bytes not found"),
        (("other.parquet", "-o", "out"), "other.parquet: expected a column path; it has name"),
        (("photos", "-o", "bad.parquet/out"), "bad.parquet/out: cannot be written (Not a directory)"),
    ],
)
def test_a_command_that_cannot_work_is_refused_in_one_line(
    run_command: Runner, model_path: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"not a table at all")
    pyarrow.parquet.write_table(pyarrow.table({"name": ["a.png"]}), tmp_path / "other.parquet")
    result = run_command("screen", "--ray", *arguments, "--model", model_path)
    line = result.stderr.decode().replace(f"{tmp_path}/", "")
    assert line.startswith(f"asr-screen: {message}"), line
    assert line.count("\n") == 1
    assert result.returncode in (2, 3)


def test_a_cluster_that_does_not_answer_is_one_line(run_command: Runner, model_path: Path, mixed_folder: Path) -> None:
    result = run_command("screen", "--ray=127.0.0.1:9", mixed_folder, "--model", model_path, "-o", "out")
    assert result.returncode == 2
    assert result.stderr.decode().startswith("asr-screen: --ray 127.0.0.1:9: no cluster answers (")
    assert result.stderr.count(b"\n") == 1
