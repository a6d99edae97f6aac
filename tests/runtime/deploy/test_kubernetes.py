"""The Kubernetes manifests: valid by the API's schema, with options that the commands have and probes that answer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from asr_runtime.cli import screen_command
from asr_runtime.serve.cli import serve_command

_FOLDER = Path(__file__).parents[3] / "runtime" / "deploy"
_MANIFESTS = sorted((_FOLDER / "kubernetes").glob("*.yaml"))
_COMMANDS = {"asr-screen": screen_command, "asr-serve": serve_command}
_VERSION = "1.33"


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _containers() -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    containers = []
    for path in _MANIFESTS:
        documents = _documents(path)
        for document in documents:
            if document["kind"] in ("Deployment", "StatefulSet"):
                containers += [(path.name, c, documents) for c in document["spec"]["template"]["spec"]["containers"]]
    return containers


@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_the_schema_of_the_api(path: Path) -> None:
    documents = _documents(path)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, _VERSION, strict=True)
    documents[0]["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[0], _VERSION, strict=True)


@pytest.mark.parametrize(("name", "container", "documents"), _containers())
def test_options_exist_and_probes_and_services_meet_a_port(
    name: str, container: dict[str, Any], documents: list[dict[str, Any]]
) -> None:
    entry = next(line for line in (_FOLDER / "Containerfile").read_text().splitlines() if line.startswith("ENTRYPOINT"))
    [command, *fixed] = container.get("command") or yaml.safe_load(entry.removeprefix("ENTRYPOINT"))
    parameters = click.Context(_COMMANDS[command], info_name=command, **_COMMANDS[command].context_settings)
    _COMMANDS[command].parse_args(parameters, [*fixed, *container["args"]])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    served = parameters.params.get("port") or int(parameters.params["metrics"].rpartition(":")[2])
    assert served in ports.values()
    for service in (document for document in documents if document["kind"] == "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    assert container["image"].rpartition(":")[2] in (Path(__file__).parents[3] / "pyproject.toml").read_text()
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [
        part for argument in container["args"] for part in shlex.split(argument.replace("=", " ")) if part[0] == "/"
    ]
    assert files
    assert all(any(file.startswith(mount + "/") for mount in mounts) for file in files), (name, files)
