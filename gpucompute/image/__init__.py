"""Images: resizing with Pillow's bytes, torchvision's geometry, and chains of them in one pass."""

from .color import normalize, rgb_to_grayscale, to_float
from .geometry import center_crop, crop, horizontal_flip, pad, vertical_flip
from .pipeline import Compose
from .resampling import resize
from .steps import CenterCrop, Crop, Grayscale, HorizontalFlip, Normalize, Pad, Resize, Step, ToFloat, VerticalFlip

__all__ = [
    "CenterCrop",
    "Compose",
    "Crop",
    "Grayscale",
    "HorizontalFlip",
    "Normalize",
    "Pad",
    "Resize",
    "Step",
    "ToFloat",
    "VerticalFlip",
    "center_crop",
    "crop",
    "horizontal_flip",
    "normalize",
    "pad",
    "resize",
    "rgb_to_grayscale",
    "to_float",
    "vertical_flip",
]
