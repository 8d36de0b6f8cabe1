"""Decoding by hardware that FFmpeg knows, such as the video decoder of an NVIDIA GPU (NVDEC)."""

import av
import torch
from av.codec import Codec, CodecContext
from av.codec.hwaccel import HWAccel

from mmpt_plugin.errors import unknown_name


def accelerator(hwaccel: str | None) -> HWAccel | None:
    """PyAV's settings for a kind of hardware, or for one of its devices, such as `cuda:1`; the CPU decodes what the
    hardware can't."""
    if hwaccel is None:
        return None
    kind, _, device = hwaccel.partition(":")
    return HWAccel(kind, device=device or None)


def on_own_gpu(hwaccel: str | None) -> str | None:
    """`cuda` as the GPU that this process computes on; anything else as it is."""
    return f"cuda:{torch.cuda.current_device()}" if hwaccel == "cuda" and torch.cuda.is_available() else hwaccel


def check_hwaccel(hwaccel: str | None) -> None:
    """ValueError for hardware that FFmpeg does not know, or can't use on this machine."""
    if hwaccel is None:
        return
    configs = Codec("h264", "r").hardware_configs or ()
    known = sorted({config.device_type.name for config in configs if config.is_supported})
    if (kind := hwaccel.partition(":")[0]) not in known:
        raise ValueError(unknown_name("hwaccel", kind, known))
    try:
        CodecContext.create("h264", "r", hwaccel=accelerator(hwaccel))
    except av.FFmpegError as error:
        raise ValueError(f"hwaccel {hwaccel}: FFmpeg can't decode with it on this machine: {error.strerror}") from error
