"""Images: resizing with Pillow's bytes, torchvision's geometry, and chains of them in one pass."""

from .color import rgb_to_grayscale
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
    "resize",
    "rgb_to_grayscale",
]
