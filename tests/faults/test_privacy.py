"""Nothing leaves the device: row 23 of the fault table.

Commands run as a user runs them, without the variables of continuous integration (which silence some libraries), in a
separate network where every look-up of a name and every packet to another machine is written down.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtime_samples import installed_line

Measured = Callable[[str], None]
_LIBRARIES = """
import {package}, sys, time
import onnxruntime, openvino
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
openvino.Core().read_model({model!r})
time.sleep(2)  # a report in the background would begin by now
"""
_FASTEST = """
import sys
from asr_runtime import Detector, read_image
detector = Detector("asrnet-lite-tiny", device="cpu", precision="auto")
detector(read_image(sys.argv[1]))
assert "openvino" in sys.modules
"""

_IN_TURN = """
import json, sys
from importlib import metadata
entries = {entry.name: entry for entry in metadata.entry_points(group="console_scripts")}
for line in json.loads(sys.argv.pop()):
    sys.argv[:] = line
    try:
        entries[line[0]].load()()
    except SystemExit as end:
        if end.code:
            raise
"""


@dataclass(frozen=True)
class Observed:
    """A finished command, what it sent, and the files that it left where nobody asked for any."""

    errors: str
    names: list[str]
    packets: list[str]
    files: list[str]


@functools.cache
def _namespaces() -> tuple[str, ...]:
    """The command that gives a process its own network and mounts; skips the test where this is not allowed."""
    tools = [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]
    if tools:
        pytest.skip(f"needs {', '.join(tools)} (Debian: util-linux, iproute2, mount)")
    for more in ((), ("--user", "--map-root-user")):
        # A separate process namespace too: processes that a command leaves behind end with it.
        command = ("unshare", *more, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        check = "mount --make-rprivate / && ip link set lo up && ip route add local 0.0.0.0/0 dev lo"
        if subprocess.run([*command, "sh", "-c", check], capture_output=True, timeout=30, check=False).returncode == 0:
            return command
    pytest.skip("needs the right to make network namespaces: root, or user namespaces")


def observe(folder: Path, *command: object, code: int = 0, home: str = "rw") -> Observed:
    """Run Python as a user with an empty home, in `folder`, observed."""
    for name in ("home", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    report = folder / "report.json"
    variables = {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "temporary"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    } | {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    script = Path(__file__).with_name("observer.py")
    done = subprocess.run(
        [*_namespaces(), sys.executable, script, report, folder / "home", home, sys.executable, *map(str, command)],
        *(), capture_output=True, text=True, env=variables, cwd=folder, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    seen = json.loads(report.read_text())
    written = [path for name in ("home", "temporary") for path in (folder / name).rglob("*") if path.is_file()]
    own = folder / "home" / ".cache" / "asrnet-edge"
    files = [str(path.relative_to(folder)) for path in written if not path.is_relative_to(own)]
    return Observed(done.stderr, seen["names"], seen["packets"], sorted(files))


def command(name: str, *arguments: object) -> list[str]:
    """Return what Python is given to run a command of the project."""
    return installed_line(name, *arguments)[1:]


def in_turn(*commands: tuple[object, ...]) -> list[str]:
    """Return what Python is given to run commands of one package, one after the other: PyTorch is imported once."""
    return ["-c", _IN_TURN, json.dumps([[str(word) for word in each] for each in commands])]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from asr_runtime.inference.builtin import builtin_path

    return Path(shutil.copy(builtin_path("asrnet-lite-tiny"), tmp_path / "model.onnx"))


def test_the_observer_sees_a_look_up_a_connection_and_a_file(tmp_path: Path) -> None:
    code = """
import pathlib, socket
try:
    socket.create_connection(("collector.example", 443), 2)
except OSError:
    pass
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", ("2001:db8::1", 4318))
pathlib.Path.home().joinpath("identity").write_text("x")
"""
    seen = observe(tmp_path, "-c", code)
    assert "collector.example" in seen.names
    assert any(packet.startswith("tcp ") and packet.endswith(" port 443") for packet in seen.packets)
    assert "udp 2001:db8::1 port 4318" in seen.packets
    assert seen.files == ["home/identity"]


@pytest.mark.fault(23)
@pytest.mark.parametrize("package", ["asr_runtime", "asr_train", "asr_export", "asr_bench"])
def test_libraries_that_are_imported_after_a_package_of_ours_send_nothing(
    tmp_path: Path, model: Path, measured: Measured, package: str
) -> None:
    seen = observe(tmp_path, "-c", _LIBRARIES.format(package=package, model=str(model)))
    assert (seen.names, seen.packets, seen.files) == ([], [], [])
    measured("onnxruntime and OpenVINO after each of the four packages: 0 look-ups, 0 packets, 0 files")


@pytest.mark.fault(23)
@pytest.mark.parametrize("home", ["rw", "ro"])
def test_screening_sends_nothing_and_needs_no_home(
    tmp_path: Path, examples: Path, measured: Measured, home: str
) -> None:
    for arguments in (
        command("asr-screen", examples / "real", "--model", "asrnet-lite-tiny"),
        command("asr-screen", examples / "real", "--model", "asrnet-lite-tiny", "--isolate", "--format", "jsonl"),
        command("asr-doctor", "--model", "asrnet-lite-tiny"),
        ("-c", _FASTEST, next((examples / "real").iterdir())),
    ):
        seen = observe(tmp_path, *arguments, home=home)
        assert (seen.names, seen.packets, seen.files) == ([], [], []), arguments
        complaints = [word for word in ("permitted", "ermission", "ead-only", "writ", "home") if word in seen.errors]
        assert not complaints, seen.errors
    measured("asr-screen, asr-doctor, Detector with OpenVINO, home writable and read-only: nothing sent, no complaint")


@pytest.mark.heavy
@pytest.mark.fault(23)
def test_screening_on_a_local_cluster_sends_nothing(examples: Path, measured: Measured) -> None:
    arguments = ("--ray", examples / "real", "--model", "asrnet-lite-tiny", "-o", "records", "--chunk", 3)
    with tempfile.TemporaryDirectory(prefix="asr-") as folder:  # Ray's sockets have paths of at most 107 bytes
        seen = observe(Path(folder), *command("asr-screen", *arguments))
        assert len(list(Path(folder, "records").glob("part-*.jsonl"))) > 1, seen.errors
    assert (seen.names, seen.packets, seen.files) == ([], [], [])
    measured("asr-screen --ray, a cluster on this machine: nothing sent, nothing left behind")


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.fault(23)
@pytest.mark.parametrize("home", ["rw", "ro"])
def test_training_evaluating_and_exporting_send_nothing(
    tmp_path: Path, generators: Path, measured: Measured, home: str
) -> None:
    options = ("--model", "asrnet", "--dim", 4, "--crop-size", 64, "--epochs", 1, "--batch-size", 4, "--workers", 0)
    texts = {
        "families.csv": "source,label,family,year\nmidjourney,1,Midjourney,\nsd3,1,SD 3,\nphotos,0,photo,\n",
        "config.toml": 'workers = 0\nviews = 1\n[preprocess]\nmode = "crop"\nsize = 48\n[options]\nblocks = 2\n',
        "space.toml": "ridge = [0.1]\n",
    }
    (tmp_path / "search").mkdir()
    for name, text in texts.items():
        (tmp_path / "search" / name).write_text(text)
    study = [word for name in texts for word in (f"--{name.partition('.')[0]}", f"search/{name}")]
    once = (  # with a writable home only; the other commands show what a read-only one changes
        ("asr-shards", "--data", generators, "-o", "shards"),
        ("asr-train", *options, "--data", "shards", "--runs", "streamed"),
        ("asr-tune", "--data", generators, *study, "--at-least", 4, "--trials", 1, "-o", "study"),
    )
    train = ("asr-train", *options, "--tracker", "mlflow", "--data", generators, "--runs", "runs")
    seen = [observe(tmp_path, *in_turn(train, *(once if home == "rw" else ())), home=home)]
    (run,) = tmp_path.glob("runs/run-*")
    checkpoint = run / "checkpoint_asrnet.pth"
    exporting = (
        ("asr-export", checkpoint, "-o", "x.onnx"),
        ("asr-parity", checkpoint, "x.onnx", "--report", "parity"),
    )
    judging = (
        ("asr-evaluate", "--model", "x.onnx", "--data", generators, "--report", "report", "--workers", 0),
        ("asr-register", run, "x.onnx"),
    )
    # Without a home, Matplotlib looks through all fonts in every process: there is one of them less.
    for lines in (exporting, judging) if home == "rw" else (exporting + judging,):
        seen.append(observe(tmp_path, *in_turn(*lines), home=home))
    for each in seen:
        assert (each.names, each.packets, each.files) == ([], [], [])
        assert "ead-only" not in each.errors
        assert "atplotlib" not in each.errors
    assert home != "rw" or (tmp_path / "study" / "best.toml").exists()
    commands = "asr-train, with MLflow and from shards too, to asr-register, and asr-tune"
    measured(f"{commands}, home {home}: nothing sent, nothing outside")
