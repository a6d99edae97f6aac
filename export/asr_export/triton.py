"""An exported file -> a model repository of NVIDIA's Triton Inference Server; the file itself stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from asr_runtime.contract import CARD_KEY, ModelCard
from asr_runtime.errors import ConfigurationError, ModelError, OutputError

__all__ = ["triton_configuration", "write_triton"]

_BATCH = 16  # frames of one inference at most
_DELAY = 2000  # microseconds that a request waits for others of its size
_WARM_SIDES = ((480, 640), (1080, 1920))


def write_triton(exported: Path, folder: Path) -> Path:
    """Write DIR/NAME/config.pbtxt and DIR/NAME/1/model.onnx.

    Args:
        exported: an ONNX file of `export`.
        folder: the model repository; other models in it stay.

    Returns:
        The folder of this model. Its name is that of the file.

    Raises:
        ModelError: the file has no card.
        OutputError: the folder cannot be written.
    """
    import onnx

    try:
        model = onnx.load(exported)
    except Exception as error:  # protobuf's DecodeError is a subclass of nothing else
        raise ModelError(f"{exported}: not an ONNX file ({error})") from None
    cards = {entry.key: entry.value for entry in model.metadata_props}
    if CARD_KEY not in cards:
        raise ModelError(f"{exported}: has no card; expected a file that asr-export wrote")
    name = exported.stem
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigurationError(
            f"{exported}: Triton names a model after its folder; expected a file name of letters, digits, - _ and ."
        )
    try:
        home = folder / name
        (home / "1").mkdir(parents=True, exist_ok=True)
        (home / "config.pbtxt").write_text(triton_configuration(name, ModelCard.from_json(cards[CARD_KEY])))
        shutil.copyfile(exported, home / "1" / "model.onnx")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from None
    return home


def triton_configuration(name: str, card: ModelCard) -> str:
    """Return the text of config.pbtxt.

    Frames of any size are accepted. Triton puts requests into one batch only where their frames have the same size, so
    windows of the model's crop, cut by the client, fill batches best. The graph gives `probability` as (N,), and
    Triton wants a dimension behind the batch, so a client gets (N, 1).
    """
    side = card.preprocess.size
    warm_up = "\n".join(
        f'  {{ name: "{batch} of {height} x {width}" batch_size: {batch} inputs {{ key: "frames" value {{ '
        f"data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] random_data: true }} }} }},"
        for height, width, batch in ((side, side, _BATCH), *((*sides, 1) for sides in _WARM_SIDES))
    ).rstrip(",")
    return f'''# {card.name}: uint8 BGR frames, as OpenCV decodes them, of any size -> P(AI-generated).
name: "{name}"
backend: "onnxruntime"
max_batch_size: {_BATCH}
input [ {{ name: "frames" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [
  {{ name: "probability" data_type: TYPE_FP32 dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "logits" data_type: TYPE_FP32 dims: [ 2 ] }}
]
# Requests with frames of one size share an inference.
dynamic_batching {{ preferred_batch_size: [ 4, 8, {_BATCH} ] max_queue_delay_microseconds: {_DELAY} }}
# Two instances on every GPU, so that copying one batch overlaps computing another; without a GPU, two on the CPU.
instance_group [ {{ count: 2 kind: KIND_AUTO }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
# The model card, for clients that look at the whole picture.
parameters {{ key: "{CARD_KEY}" value: {{ string_value: {json.dumps(card.to_json())} }} }}
# Sizes that come first in service are planned before the model is ready.
model_warmup [
{warm_up}
]
version_policy: {{ latest: {{ num_versions: 1 }} }}
'''
