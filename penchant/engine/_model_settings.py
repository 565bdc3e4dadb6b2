"""Which settings a model is fitted with, checked before anything is read; and on which device."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penchant.core.errors import InputError
from penchant.models import SIZES, model_kinds

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def model_config(shop: Shop, kind: str, size: str = "auto") -> msgspec.Struct:
    """The configuration of a kind: its defaults, what ``[train.settings]`` says, the size dial where it has one.

    Raises:
        InputError: There is no such size, or the shop's settings name what does not exist.
    """
    config = model_kinds()[kind].Config
    own = dict(shop.config.train.settings.get(kind, {}))
    try:
        settled: msgspec.Struct = msgspec.convert(own, config)
    except msgspec.ValidationError as error:
        raise _wrong_settings(kind, config, error) from None
    if size == "auto" or "size" not in settled.__struct_fields__:
        return settled
    try:
        return msgspec.convert({**own, "size": size}, config)
    except msgspec.ValidationError:
        raise InputError(
            "no such size", value=size, hint="one of: " + ", ".join(("auto", *SIZES)), path="$.size"
        ) from None


def built_in_settings() -> dict[str, type[msgspec.Struct]]:
    """What may stand in ``[train.settings.KIND]``, for each kind of model that comes with the package."""
    return {
        kind: model.Config
        for kind, model in sorted(model_kinds().items())
        if model.__module__.startswith("penchant.")
    }


def _wrong_settings(kind: str, config: type[msgspec.Struct], error: msgspec.ValidationError) -> InputError:
    """Which key of ``[train.settings]`` does not fit, and what would."""
    message, _, place = str(error).partition(" - at `$")
    unknown = re.search(r"unknown field `(.+)`", message)
    path = f"train.settings.{kind}{place.rstrip('`')}" + (f".{unknown[1]}" if unknown else "")
    help_ = (
        f"fields: {', '.join(config.__struct_fields__)}" if unknown else "see the reference page on settings"
    )
    return InputError(f"settings of {kind}: {message}", path=path, hint=f"correct shop.toml; {help_}")


def check_settings(shop: Shop, size: str) -> None:
    """Refuse settings of models that cannot be, before anything is read or fitted.

    Raises:
        InputError: ``[train.settings]`` names a kind or a field that does not exist, or a value that does not
            fit; or there is no such size.
    """
    model_config(shop, "sequence", size)
    kinds = model_kinds()
    for kind in shop.config.train.settings:
        if kind not in kinds:
            raise InputError(
                "settings for a model kind that does not exist",
                value=kind,
                hint=f"kinds: {', '.join(kinds)}; correct shop.toml",
                path=f"train.settings.{kind}",
            )
        model_config(shop, kind)


_CUDA_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")  # the last one: Linux on Windows


def pick_device(device: str) -> str:
    """``auto`` becomes cuda where there is one.

    Loading torch takes seconds, so it is asked only where the system has a driver for such a device.

    Raises:
        InputError: There is no such device.
    """
    if device == "cpu":
        return device
    kind, _, number = device.partition(":")
    if device != "auto" and (kind != "cuda" or (number and not number.isdigit()) or device.endswith(":")):
        raise InputError("no such device", value=device, hint="cpu, cuda or auto", path="$.device")
    if find_spec("torch") is not None and any(Path(name).exists() for name in _CUDA_DRIVERS):
        import torch

        if torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count():
            return "cuda" if device == "auto" else device
    if device == "auto":
        return "cpu"
    raise InputError("this machine has no such device", value=device, hint="use cpu or auto", path="$.device")
