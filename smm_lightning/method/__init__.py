"""Input transforms f_in: what is added to the image (paper sections 3 and 5)."""

from smm_lightning.method.conv_block import use_kernel
from smm_lightning.method.input_transform import InputTransform
from smm_lightning.method.interpolation import INTERPOLATIONS
from smm_lightning.method.mask_generator import MaskGenerator
from smm_lightning.method.no_prompt import NoPrompt
from smm_lightning.method.sample_specific import SampleSpecificMask
from smm_lightning.method.shared_mask import FramePrompt, PadPrompt

__all__ = [
    "INTERPOLATIONS",
    "FramePrompt",
    "InputTransform",
    "MaskGenerator",
    "NoPrompt",
    "PadPrompt",
    "SampleSpecificMask",
    "use_kernel",
]
