"""Builds the browser demo: a static folder that any web server can host. `python build.py OUT [--model X.onnx]`.

The page, the exported file, the same file with its graph optimised, a vector of pixels with what Python computed of
them, and onnxruntime-web from npm.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from asr_runtime import Detector, read_image
from asr_runtime.inference.builtin import BUILTIN, DEFAULT, builtin_path
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime

ORT = "onnxruntime-web@1.30.0"
HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
SIDES = (260, 300)  # height and width of the vector's picture
WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")


def build(out: Path, model: str | None = None) -> None:
    """Write the folder `out`; what is there already is replaced.

    Args:
        out: folder to write.
        model: path of an exported file, or a built-in name; None: the built-in default.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(HERE / "page", out)
    (out / "ort").mkdir()
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--silent", ORT]
        subprocess.run(command, cwd=folder, check=True)
        package = Path(folder, "node_modules", "onnxruntime-web")
        for name in (*WASM, *WEBGPU):
            shutil.copy(package / "dist" / name, out / "ort")
    name = model or DEFAULT
    path = builtin_path(name) if name in BUILTIN else Path(name)
    shutil.copy(path, out / "model.onnx")
    (out / "model.ort.gz").write_bytes(gzip.compress(_optimised(path), mtime=0))
    detector = Detector(path, device="cpu")
    (out / "model.json").write_text(json.dumps(_facts(detector, out)))
    _fill_service_worker(out)


def _optimised(path: Path) -> bytes:
    """Return the file in onnxruntime's own format, its graph optimised as far as that fits every processor."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "model.ort"))
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def _facts(detector: Detector, out: Path) -> dict[str, object]:
    frame = np.ascontiguousarray(read_image(EXAMPLES / "real" / "dress.jpg")[: SIDES[0], : SIDES[1]])
    (out / "check.bin").write_bytes(frame.tobytes())
    card = dataclasses.asdict(detector.card)
    facts = {name: card[name] for name in ("name", "preprocess", "calibration", "decision", "whole")}
    return {
        "name": Path(detector.name).stem,
        "sha256": detector.sha256,
        "card": facts,
        "webgpu": True,
        "check": {
            "height": frame.shape[0],
            "width": frame.shape[1],
            "probability": float(detector(frame).probability[0]),
        },
    }


def _fill_service_worker(out: Path) -> None:
    """Name every file that works without a network, and a version that changes when one of them does."""
    engines = {
        "wasm": ["model.ort.gz", *(f"ort/{name}" for name in WASM)],
        "webgpu": ["model.onnx", *(f"ort/{name}" for name in WEBGPU)],
    }
    others = {"service-worker.js", *engines["wasm"], *engines["webgpu"]}
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    files = {"page": [".", *(name for name in names if name not in others)], **engines}
    digest = hashlib.sha256()
    for name in names:
        digest.update((out / name).read_bytes())
    path = out / "service-worker.js"
    text = path.read_text().replace("VERSION", digest.hexdigest()[:16])
    path.write_text(text.replace('["FILES"]', json.dumps(files)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    given = parser.parse_args()
    build(given.out, given.model)
    sys.stderr.write(f"built {given.out}: serve it with any web server, python -m http.server -d {given.out}\n")
