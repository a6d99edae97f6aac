"""The commands as a shell sees them: output, exit codes, signals, broken pipes; in separate processes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from live_samples import until
from runtime_samples import (
    WHOLE_CARD,
    Runner,
    bright_corner,
    build_model,
    command_line,
    encoded,
    environment,
    picture,
    write_clip,
)

from asr_runtime.reports.text import CSV_COLUMNS


def lines(output: bytes) -> list[dict[str, Any]]:
    assert output.endswith(b"\n")
    return [json.loads(line) for line in output.splitlines()]


def test_json_lines_have_the_documented_fields(
    run_command: Runner, model_path: Path, mixed_folder: Path, clip: Path
) -> None:
    done = run_command("screen", mixed_folder, clip, "--model", model_path, "--format", "jsonl", "--fps", 1)
    assert done.returncode == 1
    assert done.stderr == b""
    *records, summary = lines(done.stdout)
    kinds = Counter(record["type"] for record in records)
    assert kinds == {"error": 1, "frame": 4, "image": 3, "segment": kinds["segment"], "video": 1}
    assert kinds["segment"] >= 1
    image = next(r for r in records if r["source"].endswith("white.png"))
    assert set(image) == {"type", "source", "probability", "verdict"}
    assert image["verdict"] == "ai"
    frame = [r for r in records if r["type"] == "frame"][-1]
    assert set(frame) == {"type", "source", "frame", "time", "probability", "verdict", "smoothed", "steady"}
    assert (frame["frame"], frame["time"]) == (75, 3.0)
    error = next(r for r in records if r["type"] == "error")
    assert set(error) == {"type", "source", "kind", "error"}
    assert error["kind"] == "DecodeError"
    counts = [summary[key] for key in ("read", "scored", "failed", "dropped", "skipped", "reconnects")]
    assert counts == [104, 7, 1, 0, 96, 0]
    assert summary["type"] == "summary"


def test_options_choose_looks_windows_and_evidence_maps(run_command: Runner, tmp_path: Path) -> None:
    model, image = tmp_path / "whole.onnx", tmp_path / "corner.png"
    model.write_bytes(build_model(WHOLE_CARD))
    image.write_bytes(encoded(bright_corner() | 60, ".png"))
    asked = ("--model", model, "--format", "jsonl", "--windows", "--evidence", tmp_path / "maps")
    whole, centre = (run_command("screen", image, *asked, "--look", look) for look in ("auto", "centre"))
    assert whole.returncode == centre.returncode == 0, whole.stderr + centre.stderr
    record, summary = lines(whole.stdout)
    assert (record["look"], record["verdict"], len(record["windows"])) == ("whole", "ai", 5)
    assert summary["looks"] == {"images": "whole", "videos": "centre", "cameras": "centre"}
    record, summary = lines(centre.stdout)
    assert ("look" in record, record["verdict"], len(record["windows"])) == (False, "unsure", 1)
    assert [path.name[-8:] for path in (tmp_path / "maps").iterdir()] == ["_map.jpg"]


def test_all_scored_is_exit_code_0(run_command: Runner, model_path: Path, mixed_folder: Path) -> None:
    done = run_command("screen", mixed_folder / "*.png", "--model", model_path, "--device", "cpu")
    assert done.returncode == 0
    header, row, summary = done.stdout.decode().splitlines()
    assert header.split() == ["VERDICT", "PROBABILITY", "MAX", "FRAMES", "SOURCE"]
    assert row.split()[0] == "ai"
    assert summary.startswith("1 read: 1 scored, 0 failed")
    assert "\x1b" not in done.stdout.decode()


def test_csv_has_the_documented_columns(
    run_command: Runner, model_path: Path, mixed_folder: Path, clip: Path, tmp_path: Path
) -> None:
    (mixed_folder / 'a,"b".png').write_bytes(encoded(picture(), ".png"))
    out = tmp_path / "out.csv"
    done = run_command("screen", mixed_folder, clip, "--model", model_path, "--fps=5", "--format=csv", "-o", out)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"105 read: 24 scored, 1 failed, 80 skipped" in done.stderr
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert Counter(row["type"] for row in rows if row["type"] != "segment") == {
        **{"image": 4, "frame": 20, "error": 1, "video": 1}
    }
    assert str(mixed_folder / 'a,"b".png') in [row["source"] for row in rows]
    assert all(0 <= float(row["probability"]) <= 1 for row in rows if row["type"] != "error")


def test_the_table_gives_a_video_one_row(run_command: Runner, model_path: Path, clip: Path) -> None:
    done = run_command("screen", clip, clip, clip.parent / "no.png", "--model", model_path)
    assert done.returncode == 1
    _, first, error, summary = done.stdout.decode().splitlines()
    assert first.split()[3:] == ["100", str(clip)]
    assert error.startswith("error")
    assert "no such file" in error
    assert summary.startswith("101 read: 100 scored, 1 failed")


def test_a_hostile_name_cannot_write_to_the_terminal(run_command: Runner, model_path: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"red\x1b[31m\nreal 0.0\xff.png")
    (tmp_path / name).write_bytes(encoded(picture(), ".png"))
    for form in ("table", "csv", "jsonl"):
        done = run_command("screen", tmp_path / name, "--model", model_path, "--format", form)
        assert done.returncode == 0, done.stderr
        if form != "csv":
            assert b"\x1b" not in done.stdout
    assert os.fsencode(lines(done.stdout)[0]["source"]) == os.fsencode(tmp_path / name)


def test_standard_input_is_a_list_of_files_or_a_picture(
    run_command: Runner, model_path: Path, mixed_folder: Path
) -> None:
    paths = f"{mixed_folder}/white.png\n{mixed_folder}/black.jpg\n".encode()
    done = run_command("screen", "-", "--model", model_path, "--format", "jsonl", input=paths)
    assert [record.get("verdict") for record in lines(done.stdout)] == ["ai", "real", None]
    data = (mixed_folder / "black.jpg").read_bytes()
    done = run_command("screen", "-", "--model", model_path, "--format", "jsonl", input=data)
    assert (done.returncode, lines(done.stdout)[0]["source"]) == (0, "-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], b"no source"),
        (["a.jpg", "--fps", "0"], b"--fps"),
        (["a.jpg", "--threads", "0"], b"--threads"),
        (["a.jpg", "--model", "missing.onnx"], b"missing.onnx"),
        (["ftp://user:secret@host/1"], b"expected one of rtsp://"),
        (["http://[abc/x"], b"source http://[abc/x: expected http://HOST/..."),
        (["rtsp://me:secret@[abc/x"], b"source rtsp://***@[abc/x: expected rtsp://HOST/..."),
        (["a.jpg", "http://camera:99999/"], b"expected a port from 1 to 65535"),
        (["rtsp://me:secret@camera\r\nX: y/"], b"expected letters that can be printed"),
        (["--sources", "bad.toml"], b"sources bad.toml: door: source http://***@[abc/x: expected"),
        (["a.jpg", "--webhook", "http://me:secret@[abc/x"], b"alert target http://***@[abc/x: expected"),
        (["a.jpg", "--mqtt", "mqtt://me:secret@a..b/topic"], b"alert target mqtt://***@a..b/topic: expected"),
        (["a.jpg", "--metrics", "[abc:9184"], b"address [abc:9184: expected"),
        (["a.jpg", "--metrics", "a\u2100b:" + "9" * 5000], b": expected [HOST:]PORT"),
        (["--sources", "missing.toml"], b"missing.toml"),
        (["a.jpg", "--sha256", "0" * 64], b"SHA-256"),
        (["a.jpg", "--annotate", "out.mp4"], b".mkv"),
        (["a.jpg", "--device", "tensorrt"], b"device tensorrt"),
        (["a.jpg", "--look", "whole"], b"no calibration for the whole picture"),
        (["a.jpg", "--windows"], b"--format jsonl"),
    ],
)
def test_usage_model_and_device_errors_are_2(
    run_command: Runner, model_path: Path, tmp_path: Path, arguments: list[str], message: bytes
) -> None:
    (tmp_path / "bad.toml").write_text('yard = "rtsp://camera/"\ndoor = "http://me:secret@[abc/x"')
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model_path)]
    done = run_command("screen", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count(b"\n") < 5
    assert b"secret" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_the_model_is_refused_before_any_input_is_read(run_command: Runner, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(build_model(None))
    out = tmp_path / "out.jsonl"
    done = run_command("screen", "missing.jpg", "--model", tmp_path / "bad.onnx", "-o", out)
    assert done.returncode == 2
    assert b"no card" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_output_that_cannot_be_written_is_3(
    run_command: Runner, model_path: Path, mixed_folder: Path, form: str
) -> None:
    base = ("screen", mixed_folder, "--model", model_path, "--format", form)
    with Path("/dev/full").open("wb") as full:
        cases = [
            run_command(*base, "-o", "/dev/full"),
            run_command(*base, "-o", mixed_folder),
            run_command(*base, "-o", mixed_folder / "no" / "x"),
            run_command(*base, capture_output=False, stdout=full, stderr=subprocess.PIPE),
        ]
    for done in cases:
        assert done.returncode == 3
        assert b"cannot be written" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_a_picture_named_by_mistake_is_not_replaced_by_results(
    run_command: Runner, model_path: Path, tmp_path: Path
) -> None:
    """`asr-screen -o *.jpg` names the first picture as the file for the results of the others."""
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encoded(picture(), ".png"))
    done = run_command("screen", tmp_path / "2.png", "-o", tmp_path / "1.png", "--model", model_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert (
        done.stderr
        == (
            f"asr-screen: {tmp_path / '1.png'}: is no text, and would be replaced by the results; choose another name, "
            "or remove it\n"
        ).encode()
    )
    assert (tmp_path / "1.png").read_bytes() == encoded(picture(), ".png")
    for _ in range(2):  # results of an earlier run are replaced
        assert run_command("screen", tmp_path, "-o", tmp_path / "r.csv", "--model", model_path).returncode == 0


def test_a_reader_that_goes_away_is_3(model_path: Path, clip: Path) -> None:
    arguments = command_line("screen", *[clip] * 20, "--model", model_path, "--format", "jsonl")
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
        assert process.wait(20) == 3
    assert message == b"asr-screen: standard output: the reader of the output closed it\n"


def test_an_early_end_keeps_its_exit_code_while_threads_score(slow_model_path: Path, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number), ".png"))
    arguments = command_line("screen", tmp_path, "--model", slow_model_path, "--format", "jsonl", "--jobs", 3)
    for _ in range(3):  # Python aborts at its end if a thread comes back to it from onnxruntime just then
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(arguments, env=environment(), stdout=full, stderr=subprocess.PIPE, check=False)
        message = b"asr-screen: standard output: cannot be written (No space left on device)\n"
        assert (done.returncode, done.stderr) == (3, message)


def _with(closed: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run `asr-screen` from a shell that closes one of its standard streams or more."""
    line = ["sh", "-c", f'exec "$@" {closed}', "sh", *command_line("screen", *arguments)]
    return subprocess.run(line, env=environment(), capture_output=True, timeout=60, check=False)


def test_standard_streams_that_the_caller_closed_are_handled(
    model_path: Path, mixed_folder: Path, tmp_path: Path
) -> None:
    base = ("--model", model_path, "--format", "jsonl")
    done = _with(">&-", *base, mixed_folder)
    assert (done.returncode, done.stderr) == (
        3,
        b"asr-screen: standard output: cannot be written (Bad file descriptor)\n",
    )
    quiet = _with("2>&-", *base, mixed_folder)
    assert (quiet.returncode, lines(quiet.stdout)[-1]["scored"]) == (1, 3)
    done = _with("<&-", *base, "-")
    failure, summary = lines(done.stdout)
    assert (done.returncode, summary["failed"], done.stderr) == (1, 1, b"")
    assert failure["error"].startswith("-: standard input cannot be read (Bad file descriptor)")
    output = tmp_path / "records.jsonl"
    assert _with("<&- >&- 2>&-", *base, mixed_folder, "-o", output).returncode == 1
    records, before = lines(output.read_bytes()), lines(quiet.stdout)
    assert [r["source"] for r in records[:-1]] == [r["source"] for r in before[:-1]]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_signal_ends_the_run_within_a_second_with_all_output_complete(
    slow_model_path: Path, tmp_path: Path, number: int, code: int, form: str
) -> None:
    video = write_clip(tmp_path / "long.avi", 900)
    arguments = command_line("screen", video, "--model", slow_model_path, "--format", form, "--threads", 1)
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        head = b"".join(process.stdout.readline() for _ in range(5))
        sent = time.perf_counter()
        process.send_signal(number)
        time.sleep(0.01)  # `timeout` signals the process, then its group
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
        assert process.returncode == code
        assert time.perf_counter() - sent < 1.0
    if form == "jsonl":
        *records, summary = lines(head + rest)
        assert summary["type"] == "summary"
        frames = [record for record in records if record["type"] == "frame"]
        assert summary["read"] == summary["scored"] == len(frames) < 900
        assert errors == b""
    else:
        rows = list(csv.DictReader(io.StringIO((head + rest).decode())))
        assert rows[-1]["error"] == ""
        frames = [row for row in rows if row["type"] == "frame"]
        assert errors.startswith(f"{len(frames)} read".encode())


def test_a_signal_ends_a_run_that_waits_for_standard_input(model_path: Path) -> None:
    arguments = command_line("screen", "-", "--model", model_path, "--format", "jsonl")
    with subprocess.Popen(
        arguments, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"missing.png\n")
        process.stdin.flush()
        error = process.stdout.readline()
        sent = time.perf_counter()
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(20) == 143
        assert time.perf_counter() - sent < 1.0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert [record["type"] for record in lines(error + rest)] == ["error", "summary"]


def test_the_progress_line_never_reaches_the_machine_output(model_path: Path, clip: Path) -> None:
    terminal, inside = pty.openpty()
    arguments = command_line("screen", clip, "--model", model_path, "--format", "jsonl")
    variables = {**environment(), "TERM": "xterm"}
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=inside, env=variables, check=True)
    os.close(inside)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert sum(record["type"] == "frame" for record in lines(done.stdout)) == 100
    assert b"scored" in shown
    assert b"probability" not in shown


def test_rows_and_progress_line_share_a_terminal(model_path: Path, mixed_folder: Path) -> None:
    terminal, inside = pty.openpty()
    arguments = command_line("screen", mixed_folder, "--model", model_path)
    variables = {**environment(), "TERM": "xterm", "COLUMNS": "200"}
    variables.pop("NO_COLOR", None)
    process = subprocess.Popen(arguments, stdout=inside, stderr=inside, env=variables)
    os.close(inside)
    shown = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            shown += chunk
    except OSError:
        pass  # Linux ends a pseudo-terminal with EIO
    os.close(terminal)
    assert process.wait(20) == 1
    rows = [row for row in shown.replace(b"\r", b"").split(b"\n") if b"white.png" in row and b"0." in row]
    assert any(b"\x1b[31mai\x1b[0m" in row for row in rows)


def test_the_runtime_works_without_torch_and_onnx(model_path: Path, mixed_folder: Path) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "lightning", "onnx", "onnxscript"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Refuse())
import asr_runtime, pkgutil, importlib
for module in pkgutil.walk_packages(asr_runtime.__path__, "asr_runtime."):
    importlib.import_module(module.name)
for name in asr_runtime.__all__:
    getattr(asr_runtime, name)
from asr_runtime.cli import screen_command
screen_command(sys.argv[1:], prog_name="asr-screen")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, mixed_folder / "white.png", "--model", model_path],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_contract_loads_nothing_heavy() -> None:
    code = (
        "import sys, asr_runtime.contract, asr_runtime.cli; "
        "print(sorted({'cv2', 'onnxruntime', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_the_image_limit_is_set_before_opencv_is_imported() -> None:
    code = "import os, asr_runtime.contract; print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    variables = {k: v for k, v in environment().items() if not k.startswith("OPENCV")}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, check=True)
    assert int(done.stdout) == 2**28


def _is_in(name: str, names: Callable[[], list[str]]) -> bool:
    return name in names()


def test_a_watched_folder_is_screened_as_files_come_and_ends_in_order(
    tmp_path: Path, model_path: Path, examples: Path
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    output = tmp_path / "records.jsonl"
    options = ("--watch", folder, "--state", tmp_path / "state", "-o", output, "--format", "jsonl")
    command = command_line("screen", *options, "--model", model_path)

    def sources(kind: str) -> list[str]:
        lines = output.read_text().splitlines() if output.exists() else []
        return [Path(r["source"]).name for r in map(json.loads, lines) if r["type"] == kind]

    for names in (["dress.jpg", "notes.txt"], ["top.jpg", "broken.jpg"]):
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
            for name in names:
                if name.endswith(("dress.jpg", "top.jpg")):
                    shutil.copy(examples / "real" / name, folder)
                else:
                    (folder / name).write_bytes(b"no picture")
            until(partial(_is_in, names[0], partial(sources, "image")))
            if "broken.jpg" in names:
                until(partial(_is_in, "broken.jpg", partial(sources, "error")))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=10)
        assert process.returncode == 143
    assert sources("image") == ["dress.jpg", "top.jpg"]
    assert sources("error") == ["broken.jpg"]
    assert [json.loads(line)["type"] for line in output.read_text().splitlines()].count("summary") == 2
