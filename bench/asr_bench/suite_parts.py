"""The benchmarks of speed that `asr-bench --suite` runs: a new one is one more entry of `PARTS`.

Every part is a separate command that writes `Figure`s. `suite.py` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Part"]


@dataclass(frozen=True)
class Part:
    """One benchmark of the suite.

    Attributes:
        says: what it measures, in words.
        command: one round; it runs in a folder with `photos`, `dataset`, `asrnet.pth`, `asrnet.onnx` and
            `fft-resnet34.onnx`. `DEMO` stands for the built browser demo, if there is one.
        quick: the same with as little work as possible: shows that it runs, gives no figure worth quoting.
        figures: file with its figures, in that folder.
        needs: programs that must be installed.
    """

    says: str
    command: str
    quick: str
    figures: str = "figures.json"
    needs: tuple[str, ...] = ()


_TO = " -o figures.json"
_FOLDER = "python -m asr_bench.folder photos --rounds 1 --keep made"
PARTS: dict[str, Part] = {
    "folders": Part(
        "asr-screen on a folder of 384 x 384 JPEGs, beside its bound and beside plain loops",
        f"{_FOLDER} --count 80{_TO}",
        f"{_FOLDER} --count 8 --model asrnet-lite-tiny{_TO}",
    ),
    "large-folders": Part(
        "the same with JPEGs of 12 megapixels",
        f"{_FOLDER} --count 30 --size 4000 3000{_TO}",
        f"{_FOLDER} --count 2 --size 4000 3000 --model asrnet-lite-tiny{_TO}",
    ),
    "frame-sizes": Part(
        "one frame of 384 x 384, 1080p and 4K in a network that resizes",
        f"python -m asr_bench.frame_sizes fft-resnet34.onnx --rounds 5{_TO}",
        f"python -m asr_bench.frame_sizes asrnet.onnx --rounds 1{_TO}",
    ),
    "engines": Part(
        "one frame in each engine, ASRNet in float32",
        "asr-bench asrnet.onnx --checkpoint asrnet.pth --engine 'torch eager' --engine 'naive onnxruntime' "
        "--engine asrnet-edge --engine 'openvino f32' --rounds 10 -o engines",
        "asr-bench asrnet.onnx --checkpoint asrnet.pth --engine 'torch eager' --engine asrnet-edge --rounds 2 "
        "-o engines",
        "engines/figures.json",
    ),
    "start": Part(
        "from the start of asr-screen to its first verdict",
        f"python -m asr_bench.start --rounds 5{_TO}",
        f"python -m asr_bench.start --rounds 1{_TO}",
    ),
    "costs": Part(
        "decoding and looks on one core",
        f"python -m asr_bench.cost{_TO}",
        f"python -m asr_bench.cost{_TO}",
    ),
    "batching": Part(
        "pictures in one inference",
        f"python -m asr_bench.batching --rounds 3{_TO}",
        f"python -m asr_bench.batching --model asrnet-lite-tiny --rounds 1{_TO}",
    ),
    "cameras": Part(
        "16 RTSP cameras of 1080p at one look a second",
        f"python -m asr_bench.cameras --cameras 16 --fps 1 --seconds 15 --key-frames{_TO}",
        f"python -m asr_bench.cameras --cameras 1 --fps 2 --seconds 2 --key-frames{_TO}",
        needs=("ffmpeg",),
    ),
    "server": Part(
        "eight clients of asr-serve",
        f"python -m asr_bench.serve_load --clients 8 --seconds 10{_TO}",
        f"python -m asr_bench.serve_load --model asrnet-lite-tiny --clients 2 --seconds 1{_TO}",
    ),
    "browser": Part(
        "from opening the browser demo to its first verdict",
        f"python -m asr_bench.browser_start DEMO --rounds 1{_TO}",
        f"python -m asr_bench.browser_start DEMO --rounds 1{_TO}",
        needs=("chromium",),
    ),
    "loader": Part(
        "pictures on their way to a training",
        "asr-bench --loader dataset -o loader",
        "asr-bench --loader dataset --workers 1 -o loader",
        "loader/loader.json",
    ),
    "training": Part(
        "steps of training ASRNet",
        f"python -m asr_bench.training --way float32 --way bf16 --rounds 3{_TO}",
        f"python -m asr_bench.training --way float32 --batch 2 --rounds 1{_TO}",
    ),
    "training-fft-resnet34": Part(
        "steps of training FFT-ResNet-34",
        f"python -m asr_bench.training --model fft-resnet34 --way float32 --way bf16 --rounds 3{_TO}",
        f"python -m asr_bench.training --model fft-resnet34 --way float32 --batch 2 --rounds 1{_TO}",
    ),
}
"""The parts by name, in the order in which they run."""
