"""MLflow: a local SQLite file or a server that the user names; nothing goes anywhere else.

`asr_runtime` switches MLflow's usage reports off (`MLFLOW_DISABLE_TELEMETRY`) before MLflow can be imported.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from asr_runtime.errors import ConfigurationError, DependencyError
from asr_runtime.redact import redact
from asr_train.data.json_file import read_json, write_json
from asr_train.tracking.tracking import MLFLOW_FILE

__all__ = ["EXPERIMENT", "MlflowRun", "register"]

log = logging.getLogger("asr_train")

EXPERIMENT = "asrnet-edge"


class MlflowRun(MLFlowLogger):
    """The MLflow run of a run folder; a server that fails while training goes on is reported once and no more used.

    Args:
        folder: the run folder. If it has an MLflow run already, that one goes on.
        address: `sqlite:///FILE`, or a server's URL.

    Raises:
        ConfigurationError: no server answers, the file cannot be opened, or the URL holds a password.
        DependencyError: the extra is not installed.
    """

    def __init__(self, folder: Path, address: str) -> None:
        _prepare(address)
        known = read_json(folder / MLFLOW_FILE) if (folder / MLFLOW_FILE).is_file() else {}
        local = address.startswith("sqlite:")
        try:
            super().__init__(
                EXPERIMENT,
                run_name=folder.name,
                tracking_uri=address,
                artifact_location=(folder.parent.absolute() / "mlflow-artefacts").as_uri() if local else None,
                run_id=known.get("run_id"),
            )
            identity = self.run_id
        except Exception as error:  # MLflow, SQLAlchemy, requests: whatever an address leads to
            raise _refused(address, error) from None
        self._failed = False
        write_json(folder / MLFLOW_FILE, {"tracking_uri": address, "run_id": identity})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; what fails is reported once."""
        self._attempt(super().log_metrics, dict(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """Log parameters; nested tables become names with a slash. Those of a resumed run stay: MLflow changes none."""

        def log_once() -> None:
            if not self.experiment.get_run(str(self.run_id)).data.params:
                MLFlowLogger.log_hyperparams(self, params)

        self._attempt(log_once)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Say how the run ended."""
        self._attempt(super().finalize, status)

    @rank_zero_only
    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as an artefact."""
        self._attempt(lambda: self.experiment.log_artifact(self.run_id, str(path), folder))

    def _attempt(self, call: Any, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # as in the constructor; training must go on
            self._failed = True
            log.warning("%s; training goes on without it", _refused(str(self._tracking_uri), error))


def register(folder: Path, model: Path, card: str, report: Path | None, name: str) -> str:
    """Add an exported file, its card and an evaluation to a run's MLflow run, and register the model.

    Args:
        folder: the run folder, of a training with `--tracker mlflow`.
        model: the exported file.
        card: its card, JSON.
        report: a folder of asr-evaluate, whose files are added; None: none.
        name: of the model in the registry; a new version is made if it exists.

    Returns:
        The number of the version.

    Raises:
        ConfigurationError: the run was not tracked, or the tracker refuses.
    """
    if not (folder / MLFLOW_FILE).is_file():
        raise ConfigurationError(f"{folder}: no {MLFLOW_FILE}; expected a run of asr-train --tracker mlflow")
    known = read_json(folder / MLFLOW_FILE)
    address, run = str(known.get("tracking_uri")), str(known.get("run_id"))
    _prepare(address)
    from mlflow import MlflowClient, MlflowException

    try:
        client = MlflowClient(address, registry_uri=address)
        client.log_artifact(run, str(model), "model")
        client.log_text(run, card, "model/card.json")
        if report is not None:
            client.log_artifacts(run, str(report), "evaluation")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return str(client.create_model_version(name, source=f"runs:/{run}/model", run_id=run).version)
    except Exception as error:  # as above
        raise _refused(address, error) from None


def _prepare(address: str) -> None:
    """Check an address, and set what MLflow reads when it is imported."""
    for module in ("mlflow", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(module) is None:
            raise DependencyError(f"--tracker mlflow: {module} is not installed; pip install 'asrnet-edge[mlflow]'")
    parts = urlsplit(address)
    if parts.scheme not in ("sqlite", "http", "https"):
        raise ConfigurationError(f"--tracking-uri {redact(address)}: expected sqlite:///FILE, or http(s)://HOST:PORT")
    if parts.password or parts.username:
        raise ConfigurationError(
            f"--tracking-uri {redact(address)}: set user and password in MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, not in the address, which is written into the run folder"
        )
    # A server that does not answer: seven attempts, each slower, would take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)


def _refused(address: str, error: Exception) -> ConfigurationError:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ConfigurationError(f"MLflow at {redact(address)}: {why}")
