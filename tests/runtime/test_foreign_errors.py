"""Every error class of every library that the runtime calls is mapped to one of ours, or there is a reason why not.

A new class in a library, a new file that calls it, and a handler that is gone all fail here.
"""

from __future__ import annotations

import ast
import importlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import asr_runtime

ROOT = Path(asr_runtime.__file__).parent
AT_EDGE = "the caller catches it: "
NOTHING_FOREIGN = "is given only what this package made itself"


@dataclass(frozen=True)
class Library:
    """What a library raises, and what becomes of it in each file that calls it.

    Attributes:
        errors: classes that all others of the library derive from; `Exception` where they have no common root.
        files: file of the runtime -> the classes of ours that its handlers turn those into, or the reason why it has no
            handler; a file ending in `/` stands for the folder.
        modules: that define error classes, where that is not the library itself.
    """

    errors: tuple[str, ...]
    files: Mapping[str, str]
    modules: tuple[str, ...] = ()


DRAWS = AT_EDGE + "reports/outputs.py turns what drawing and writing raise into OutputError"
CHILD = "runs in a child process, whose end with any error is a ChildError in its parent"
FRAMES = AT_EDGE + "sources/steps.py turns what decoding files raises into DecodeError"
CONNECTS = AT_EDGE + "http/client.py turns what a connection raises into HttpError"
ONE = ("Exception",)

LIBRARIES: dict[str, Library] = {
    "cv2": Library(
        ("cv2.error",),
        {
            "media/image.py": "DecodeError",
            "media/capture.py": FRAMES,
            "media/clock.py": FRAMES,
            "media/own_size.py": FRAMES,
            "media/stretches.py": FRAMES,
            "media/stale.py": FRAMES,
            "media/video.py": FRAMES,
            "sources/steps.py": "DecodeError",
            "cameras/streams.py": "SourceError",
            "isolation/worker.py": CHILD,
            "reports/jpeg.py": "OutputError",
            "reports/outputs.py": "OutputError",
            "reports/evidence.py": "a warning instead of the map",
            "reports/annotate.py": DRAWS,
            "reports/clip_writer.py": DRAWS,
            "reports/lettering.py": DRAWS,
            "reports/overlay.py": DRAWS,
            "screening/smoothing.py": "shrinks a thumbnail of a picture that was decoded: no size that OpenCV refuses",
            "serve/screener.py": NOTHING_FOREIGN,
            "doctor.py": "a finding",
        },
    ),
    "onnxruntime": Library(
        ONE,
        {"inference/onnxruntime_engine.py": "ModelError DeviceError"},
        ("onnxruntime.capi.onnxruntime_pybind11_state",),
    ),
    "openvino": Library(
        ONE, {"inference/openvino_engine.py": "ModelError DeviceError"}, ("openvino", "openvino.exceptions")
    ),
    "pillow_heif": Library(ONE, {"media/heif.py": "DecodeError", "doctor.py": "a finding"}),
    "PIL": Library(ONE, {"provenance/notes.py": "a claim that says so"}, ("PIL", "PIL.Image")),
    "c2pa": Library(("c2pa.C2paError",), {"provenance/credentials.py": "a claim that says so"}, ("c2pa.c2pa",)),
    "watchfiles": Library(
        ("OSError", "RuntimeError", "watchfiles._rust_notify.WatchfilesRustInternalError"),
        {"sources/watch.py": "ConfigurationError OutputError"},
    ),
    "paho": Library(
        ONE, {"reports/alert_targets.py": "DeliveryError"}, ("paho.mqtt.client", "paho.mqtt", "paho.mqtt.packettypes")
    ),
    "prometheus_client": Library(
        ("ValueError",),
        {
            "reports/prometheus.py": NOTHING_FOREIGN + ": its names of figures are constants, in a registry of its own",
            "serve/figures.py": NOTHING_FOREIGN + ": its names of figures are constants, in a registry of its own",
            "doctor.py": "imports it by name; ImportError is a finding",
        },
        ("prometheus_client.registry", "prometheus_client.core"),
    ),
    "uvicorn": Library(
        ("OSError", "uvicorn.importer.ImportFromStringError"),
        {
            "serve/server.py": "gives it a socket that listens already, and the application itself, not its name",
            "serve/protocol.py": "what a client does wrong ends that client's connection",
            "reports/wall_server.py": "gives it a socket that listens already, and the application itself",
        },
        ("uvicorn.protocols.utils", "uvicorn.importer"),
    ),
    "starlette": Library(
        ONE,
        {
            "serve/app.py": "an answer of HTTP with its status",
            "serve/browser_demo.py": "an answer of HTTP with its status",
            "serve/uploads.py": "a client that has gone needs no answer",
            "reports/wall_server.py": "an answer of HTTP with its status",
            "reports/guard.py": "an answer of HTTP with its status",
        },
        ("starlette.exceptions", "starlette.requests", "starlette.websockets", "starlette.responses"),
    ),
    "fastapi": Library(ONE, {"serve/app.py": "an answer of HTTP with its status"}, ("fastapi.exceptions",)),
    "python_multipart": Library(
        ("python_multipart.exceptions.FormParserError",),
        {"serve/uploads.py": "RefusedError"},
        ("python_multipart.exceptions",),
    ),
    "json": Library(
        ("ValueError",),
        {
            "contract.py": "ModelError ValueError",
            "sources/watch.py": "ConfigurationError",
            "archive/ledger.py": "ConfigurationError",
            "inference/engine_times.py": "a file of times that is damaged is measured anew",
            "provenance/notes.py": "text that is no JSON holds no notes",
            "provenance/credentials.py": NOTHING_FOREIGN + ": reads what c2pa wrote",
            "provenance/reader.py": "a claim that says so",
            "reports/text.py": "OutputError",
            **dict.fromkeys(
                (
                    "commands/doctor.py",
                    "serve/app.py",
                    "reports/alerts.py",
                    "reports/prometheus.py",
                    "reports/wall_server.py",
                ),
                "only writes JSON",
            ),
            "reports/guard.py": "an answer of HTTP with its status",
        },
    ),
    "fsspec": Library(
        ONE,
        {
            "archive/chunk.py": "SourceError",
            "archive/inputs.py": "ConfigurationError",
            "archive/ledger.py": "ConfigurationError OutputError",
        },
        ("fsspec.exceptions",),
    ),
    "pyarrow": Library(
        ONE, {"archive/inputs.py": "ConfigurationError", "archive/ledger.py": "ConfigurationError"}, ("pyarrow.lib",)
    ),
    "ray": Library(
        ("ray.exceptions.RayError",),
        {"archive/ray_cluster.py": "InferenceError"},
        ("ray.exceptions",),
    ),
    "tomllib": Library(("ValueError",), {"sources/live.py": "ConfigurationError"}),
    "struct": Library(
        ("struct.error",),
        {
            "media/contents.py": "a file that makes no sense declares nothing",
            "media/depth.py": NOTHING_FOREIGN + ": every offset is compared with the length first",
            "isolation/files.py": "reads as many bytes as the structure has; another number is a malformed answer",
            "isolation/stream.py": "reads as many bytes as the structure has; another number is a malformed answer",
            "provenance/reader.py": "reads as many bytes as the structure has; another number is a malformed answer",
            "cameras/streams.py": "only packs constants",
        },
    ),
    "http": Library(
        ("http.client.HTTPException",),
        {
            "http/client.py": "HttpError",
            "http/connection.py": CONNECTS,
            "cameras/streams.py": "SourceError",
            "cameras/host_gate.py": "a connection that breaks is closed",
            "reports/http_server.py": "names of statuses only",
            "reports/guard.py": "cookies: an answer of HTTP with its status",
        },
        ("http.client",),
    ),
    "ssl": Library(("OSError",), {"http/connection.py": CONNECTS, "reports/alert_targets.py": "DeliveryError"}),
    "socket": Library(
        ("OSError", "socket._GiveupOnSendfile"),  # the second never leaves the module
        {
            "http/connection.py": CONNECTS,
            "archive/ray_cluster.py": "ConfigurationError",
            "cameras/rtsp.py": "returns what went wrong, as a text",
            "cameras/host_gate.py": "a connection that breaks is closed",
            "reports/http_server.py": "OutputError",
            "serve/server.py": AT_EDGE + "listens through reports/http_server.py",
        },
        ("socket",),
    ),
    "urllib": Library(
        ("ValueError", "OSError"),
        {
            "http/urls.py": "ConfigurationError",
            "redact.py": "a text that is no URL is shown without what may be a password",
            **dict.fromkeys(
                ("http/client.py", "cameras/rtsp.py", "cameras/streams.py", "cameras/host_gate.py"),
                "takes checked URLs",
            ),
            "reports/alert_targets.py": "takes checked URLs",
            "reports/guard.py": "quotes and unquotes, which raises nothing",
            "sources/remote.py": "takes checked URLs",
        },
        ("urllib.error",),
    ),
    "ipaddress": Library(
        ("ValueError",),
        {"http/urls.py": "ConfigurationError", "reports/access.py": "no address is no loopback address"},
    ),
    "base64": Library(("ValueError",), {"http/login.py": "only encodes"}),
    "email": Library(ONE, {"http/client.py": "reads parameters of a header, which raises nothing"}, ("email.errors",)),
    "subprocess": Library(("OSError", "subprocess.SubprocessError"), {"isolation/worker.py": "ChildError"}),
    "asyncio": Library(
        ("Exception", "asyncio.CancelledError"),
        {
            "reports/http_server.py": "a client that sends nonsense is cut off",
            **dict.fromkeys(
                ("reports/guard.py", "reports/wall_server.py", "serve/protocol.py", "serve/screener.py"),
                "a cancelled task ends with its client or the server",
            ),
            "serve/server.py": "a cancelled task ends with its client or the server",
            "serve/uploads.py": "a cancelled task ends with its client or the server",
        },
        ("asyncio",),
    ),
    "click": Library(
        ("click.ClickException", "RuntimeError"),
        {
            **dict.fromkeys(
                (
                    "commands/screen.py",
                    "commands/screen_archive.py",
                    "commands/doctor.py",
                    "command.py",
                    "serve/cli.py",
                ),
                "click itself says what is wrong, exit code 2",
            ),
            "reports/outputs.py": "only writes to stderr",
            "reports/text.py": "only colours text",
            "archive/report.py": "only writes to stderr",
        },
        ("click.exceptions",),
    ),
    "rich": Library(
        ONE,
        dict.fromkeys(
            ("reports/progress.py", "archive/report.py"), NOTHING_FOREIGN + ": names of sources are shown as plain text"
        ),
        ("rich.errors",),
    ),
}
NO_ERRORS_OF_THEIR_OWN = {
    *("__future__", "abc", "atexit", "collections", "contextlib", "csv", "ctypes", "dataclasses", "errno"),
    *("faulthandler", "fcntl", "fnmatch", "functools", "hashlib", "hmac", "html", "importlib", "io", "itertools"),
    *("logging", "math", "numpy", "os", "pathlib", "platform", "queue", "random", "re", "resource", "secrets"),
    *("select", "shlex", "shutil", "signal", "stat", "statistics", "sys", "tempfile", "threading", "time"),
    *("types", "typing", "warnings", "weakref", "webbrowser"),
}
"""They raise Python's own classes (OSError, ValueError, MemoryError, ...), or are not called with what users give."""


def imports() -> Iterator[tuple[str, str]]:
    """Each file of the runtime and each top-level package that it imports, lazily or not."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            for name in names:
                yield path.relative_to(ROOT).as_posix(), name.partition(".")[0]


def resolved(name: str) -> Any:
    if "." not in name:
        return vars(__import__("builtins"))[name]
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def error_classes(library: str, modules: tuple[str, ...]) -> Iterator[type[BaseException]]:
    for name in modules or (library,):
        try:
            module = importlib.import_module(name)
        except ImportError:
            pytest.skip(f"{name} is not installed")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(value, Warning):
                yield value


def handlers(path: Path) -> Iterator[type[BaseException]]:
    """Classes that a file catches, or suppresses."""
    module = importlib.import_module(".".join(["asr_runtime", *path.relative_to(ROOT).with_suffix("").parts]))
    scope = {**vars(__import__("builtins")), **vars(module)}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazily = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            expressions: list[ast.expr] = [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            expressions = list(node.args)
        else:
            continue
        for expression in expressions:
            for part in expression.elts if isinstance(expression, ast.Tuple) else [expression]:
                try:
                    caught = eval(ast.unparse(part), dict(scope))
                except NameError:  # imported where it is needed
                    caught = resolved(lazily.get(name := ast.unparse(part), name))
                yield from caught if isinstance(caught, tuple) else (caught,)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_error_class_has_an_answer(library: str) -> None:
    entry = LIBRARIES[library]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        roots = tuple(resolved(name) for name in entry.errors)
        classes = set(error_classes(library, entry.modules))
    assert all(issubclass(kind, roots) for kind in classes), [kind for kind in classes if not issubclass(kind, roots)]
    for file, answer in entry.files.items():
        named = [word for word in answer.split() if word.endswith("Error")]
        promised = bool(named) and len(named) == len(answer.split())
        assert answer
        if not promised:
            continue
        caught = tuple(handlers(ROOT / file))
        assert any(issubclass(roots[0], kind) for kind in caught), f"{file} catches {roots[0]} no more"
        text = (ROOT / file).read_text(encoding="utf-8")
        assert any(name in text for name in named), f"{file} raises none of {named}"


def test_every_file_that_calls_a_library_is_in_the_table() -> None:
    calls = {(file, library) for file, library in imports() if library not in {*NO_ERRORS_OF_THEIR_OWN, "asr_runtime"}}
    table = {(file, library) for library, entry in LIBRARIES.items() for file in entry.files}
    assert calls - table == set(), "say in LIBRARIES what becomes of that library's errors in that file"
    assert table - calls - {("doctor.py", "prometheus_client")} == set()  # that one it imports by name
