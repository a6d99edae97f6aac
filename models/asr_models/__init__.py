"""The networks and the spectral transforms, in plain PyTorch."""

from asr_models.asrnet import ASRNet
from asr_models.asrnet_lite import ASRNetLite
from asr_models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from asr_models.cost import multiply_adds
from asr_models.deployed import Deployed
from asr_models.errors import CheckpointError, ModelsError, OptionError, WeightsError
from asr_models.fft_resnet import FFTResNet
from asr_models.input_transform import InputTransform
from asr_models.registry import create_model, default_preprocess, option_names

__all__ = [
    "ASRNet",
    "ASRNetLite",
    "Checkpoint",
    "CheckpointError",
    "Deployed",
    "FFTResNet",
    "InputTransform",
    "ModelsError",
    "OptionError",
    "WeightsError",
    "create_model",
    "default_preprocess",
    "load_checkpoint",
    "multiply_adds",
    "option_names",
    "save_checkpoint",
]
