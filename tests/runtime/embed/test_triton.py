"""The Triton client gives the probabilities of asr-screen, against a server of Triton's protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from asr_export.triton import write_triton
from asr_runtime import Detector, read_image
from asr_runtime.inference.builtin import builtin_path

_ROOT = Path(__file__).parents[3]
_CLIENT = _ROOT / "runtime" / "embed" / "triton" / "score.py"
_MODEL = builtin_path("asrnet-lite-tiny")


class _Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves one model of a repository and holds requests to its configuration, as Triton does."""

    def __init__(self, home: Path) -> None:
        self.config = text_format.Parse((home / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        self._session = onnxruntime.InferenceSession(str(home / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
        self.batches: list[int] = []

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        [given], [declared] = request.inputs, self.config.input
        shape = list(given.shape)
        assert given.name == declared.name
        assert given.datatype == "UINT8"
        assert all(d in (-1, s) for d, s in zip(declared.dims, shape[1:], strict=True))
        assert shape[0] <= self.config.max_batch_size
        self.batches.append(shape[0])
        frames = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(shape)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for output, values in zip(self.config.output, self._session.run(None, {"frames": frames}), strict=True):
            response.outputs.add(name=output.name, datatype="FP32", shape=[shape[0], *output.dims])
            response.raw_output_contents.append(values.tobytes())
        return response


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, _Server]]:
    servicer = _Server(write_triton(_MODEL, tmp_path_factory.mktemp("models")))
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def test_probabilities_are_those_of_asr_screen(server: tuple[str, _Server], tmp_path: Path) -> None:
    address, servicer = server
    pictures = sorted((_ROOT / "runtime" / "examples" / "real").glob("*.*g"))[:4]
    narrow = tmp_path / "narrow.png"

    cv2.imwrite(str(narrow), read_image(pictures[0])[:70, :300])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    line = [sys.executable, _CLIENT, "--url", address, "--model", "asrnet-lite-tiny", *pictures, broken, narrow]
    result = subprocess.run(line, capture_output=True, check=False, timeout=120)
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1] == f"{broken}: not a picture that OpenCV reads"
    detector = Detector("asrnet-lite-tiny", threads=1)
    answers = [json.loads(answer) for answer in result.stdout.splitlines()]
    assert [answer["source"] for answer in answers] == [str(path) for path in (*pictures, narrow)]
    for answer in answers:
        expected = detector.look(read_image(answer["source"]), "whole").probability
        assert answer["probability"] == pytest.approx(expected, abs=1e-5)
    assert max(servicer.batches) == 5, "all windows of a picture go in one request"
