"""Tracking in MLflow: a real SQLite file, a real server that answers or does not, and the registry."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import run_train

from asr_export.onnx_file import export
from asr_models import load_checkpoint
from asr_train.cli import register_command

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",  # of lightning, tensorboard and alembic
        "ignore::FutureWarning",  # of mlflow
        "ignore:.*LeafSpec.*",
        "ignore:unclosed database:ResourceWarning",  # of mlflow's pool
    ),
]


@pytest.fixture(scope="module")
def options(pristine_generators: Path) -> list[object]:
    return ["--data", pristine_generators, "--dim", 4, "--crop-size", 48, "--epochs", 2, "--batch-size", 4,
            "--workers", 0]  # fmt: skip


@pytest.fixture(scope="module")
def run(options: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tracked run."""
    runs = tmp_path_factory.mktemp("tracked") / "runs"
    done = run_train(*options, "--runs", runs, "--tracker", "mlflow", "--leave-out", "snaps")
    assert done.exit_code == 0, done.output
    (folder,) = runs.glob("run-*")
    return folder


def _client(run: Path):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    known = json.loads((run / "mlflow.json").read_text())
    assert known["tracking_uri"] == f"sqlite:///{run.parent / 'mlflow.db'}"
    return MlflowClient(known["tracking_uri"], registry_uri=known["tracking_uri"]), known["run_id"]


def _files(client, identity: str, folder: str | None = None) -> set[str]:  # type: ignore[no-untyped-def]
    return {entry.path for entry in client.list_artifacts(identity, folder)}


def test_a_run_in_mlflow_has_parameters_metrics_pictures_and_files(run: Path) -> None:
    client, identity = _client(run)
    logged = client.get_run(identity)
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == run.name
    assert {logged.data.params[key] for key in ("model", "epochs", "options/dim")} == {"asrnet", "2", "4"}
    assert logged.data.params["data"] == "generators"  # no folder of this machine
    losses = [entry.value for entry in client.get_metric_history(identity, "train/loss")]
    assert losses == [epoch["train/loss"] for epoch in json.loads((run / "summary.json").read_text())["history"]]
    assert {"checkpoint_asrnet.pth", "config.toml", "summary.json"} <= _files(client, identity)
    assert "pictures/training.png" in _files(client, identity, "pictures")


def test_tensorboard_has_the_same_without_a_tracker(options: list[object], tmp_path: Path) -> None:
    for more in ([], ["--model", "asrnet-lite", "--blocks", 2, "--views", 1]):
        skipped = 2 if more else 0  # asrnet-lite has no --dim
        given = [*options[:2], *options[4:6], *options[8:]] if skipped else options
        done = run_train(*given, *more, "--runs", tmp_path / "runs")
        assert done.exit_code == 0, done.output
    for run in (tmp_path / "runs").glob("run-*"):
        events = EventAccumulator(str(run))
        events.Reload()
        assert events.Tags()["images"] == ["training"]
        assert "val_auroc" in events.Tags()["scalars"]
        assert not (run / "mlflow.json").exists()
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_an_exported_file_is_registered_with_its_card_and_report(run: Path, tmp_path: Path) -> None:
    export(load_checkpoint(run / "checkpoint_asrnet.pth"), tmp_path / "x.onnx")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text("{}")
    for version in ("1", "2"):
        done = CliRunner().invoke(
            register_command,
            [str(run), str(tmp_path / "x.onnx"), "--report", str(tmp_path / "report"), "--name", "gate"],
        )
        assert done.exit_code == 0, done.output
        assert f"version {version} of gate" in done.output
    client, identity = _client(run)
    assert _files(client, identity, "model") == {"model/x.onnx", "model/card.json"}
    assert _files(client, identity, "evaluation") == {"evaluation/metrics.json"}
    copy = client.download_artifacts(identity, "model/x.onnx", str(tmp_path))
    assert Path(copy).read_bytes() == (tmp_path / "x.onnx").read_bytes()
    assert client.get_model_version("gate", "2").run_id == identity


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(run: Path, tmp_path: Path, options: list[object]) -> None:
    done = run_train("--resume", run, "--epochs", 3)
    assert (done.exit_code, "without it" in done.output) == (0, False), done.output
    client, identity = _client(run)
    assert len(client.get_metric_history(identity, "train/loss")) == 3
    assert len(client.search_runs([client.get_run(identity).info.experiment_id])) == 1


class _Dying(BaseHTTPRequestHandler):
    """An MLflow server that is there when a run begins and answers nothing later."""

    answers = 3

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).answers -= 1
        body = b"{}"
        if "experiments/get" in self.path:
            body = b'{"experiment": {"experiment_id": "1", "name": "asrnet-edge", "lifecycle_stage": "active"}}'
        elif "runs/create" in self.path or "runs/get" in self.path:
            body = b'{"run": {"info": {"run_id": "r", "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1/r"}}}'
        self.send_response(200 if type(self).answers >= 0 else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def dying() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Dying)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_server_that_dies_costs_a_warning_and_no_training(
    options: list[object], tmp_path: Path, dying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run_train(*options, "--runs", tmp_path / "runs", "--tracker", "mlflow", "--tracking-uri", dying)
    assert done.exit_code == 0, done.output
    assert done.output.count("training goes on without it") == 1
    assert next((tmp_path / "runs").glob("run-*/checkpoint_asrnet.pth")).is_file()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host", "expected sqlite:///FILE, or http(s)://HOST:PORT"),
        ("http://me:secret@host:5000", "MLFLOW_TRACKING_USERNAME"),
        ("sqlite:////dev/null/x.db", "MLflow at sqlite:////dev/null/x.db: "),
        (None, "MLflow at http://127.0.0.1:"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(
    options: list[object], tmp_path: Path, address: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if address is None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = run_train(*options, "--runs", tmp_path / "runs", "--tracker", "mlflow", "--tracking-uri", address)
    assert done.exit_code == 2, done.output
    assert message in done.output.splitlines()[-1]
    assert "secret" not in done.output
    assert "Traceback" not in done.output


def test_what_cannot_be_registered_is_one_line(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "mlflow.json").unlink()
    export(load_checkpoint(run / "checkpoint_asrnet.pth"), tmp_path / "x.onnx")
    for arguments, message in (
        ([copy, tmp_path / "x.onnx"], "no mlflow.json; expected a run of asr-train --tracker mlflow"),
        ([run, copy / "config.toml"], "config.toml"),
        ([run, tmp_path / "x.onnx", "--report", tmp_path / "none"], "--report"),
    ):
        done = CliRunner().invoke(register_command, [*map(str, arguments)])
        assert (done.exit_code, message in done.output, "Traceback" in done.output) == (2, True, False), done.output
