"""`asr-serve` as users start it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from runtime_samples import environment, serve_line
from serve_samples import Client, command


def refused(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        serve_line(*arguments), capture_output=True, text=True, check=False, env=environment(), timeout=60
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_server_runs_until_a_signal_and_leaves_nothing_behind(model_path: Path, number: int, code: int) -> None:
    with command("--model", model_path, "--port", 0, "--workers", 1) as (process, address):
        assert Client(address).ask("GET", "/")[0] == 200
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_other_machines_need_a_token(model_path: Path, tmp_path: Path) -> None:
    for arguments in (["--host", "0.0.0.0"], ["--host", "::"], ["--allow-host", "photos.example"]):
        code, message = refused("--model", model_path, "--port", 0, *arguments)
        assert (code, message.count("\n")) == (2, 1)
        assert "protect it with --token-file FILE" in message
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    with command("--model", model_path, "--port", 0, "--host", "0.0.0.0", "--token-file", token) as (_, address):
        client = Client(address.replace("0.0.0.0", "127.0.0.1"))
        assert client.ask("GET", "/v1/model")[0] == 401
        assert client.ask("GET", "/v1/model", headers={"Authorization": "Bearer 0123456789abcdef0123"})[0] == 200


@pytest.mark.parametrize("text", ["short", "", "umläute-sind-kein-ascii"])
def test_a_token_that_is_none_is_refused(model_path: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    code, message = refused("--model", model_path, "--token-file", tmp_path / "token")
    assert (code, message.count("\n"), f"token file {tmp_path / 'token'}" in message) == (2, 1, True)


def test_a_folder_that_is_no_browser_demo_is_one_line(model_path: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        code, message = refused("--model", model_path, "--port", 0, "--browser-demo", folder)
        assert (code, message.count("\n")) == (2, 1)
        assert f"--browser-demo {folder}: expected a built browser demo" in message
        assert "make browser-demo" in message


def test_a_port_in_use_and_a_missing_model_are_one_line(model_path: Path) -> None:
    with command("--model", model_path, "--port", 0) as (_, address):
        code, message = refused("--model", model_path, "--port", address.rpartition(":")[2])
        assert (code, message.count("\n"), "Address already in use" in message) == (3, 1, True)
    code, message = refused("--model", "missing.onnx")
    assert (code, message.count("\n")) == (2, 1)
