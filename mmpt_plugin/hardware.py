"""Choose the device to compute on, and check what this machine's GPUs support."""

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import torch

CPU_FLAGS = Path("/proc/cpuinfo")


def compute_device() -> torch.device:
    """This process's GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_avx2() -> bool:
    """Whether the processor has AVX2; True for other architectures, and where Linux does not say."""
    if platform.machine() != "x86_64" or not CPU_FLAGS.is_file():
        return True
    flags = re.search(r"^flags\s*:(.*)$", CPU_FLAGS.read_text(), re.M)
    return flags is None or "avx2" in flags[1].split()


def gpu_problems(*, bf16: bool) -> Iterator[str]:
    """One line for each GPU of this machine that cannot train, with the reason."""
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        capability = torch.cuda.get_device_capability(i)
        if problem := gpu_problem(capability, torch.cuda.get_arch_list(), bf16=bf16):
            yield f"{torch.cuda.get_device_name(i)} {problem}"


def gpu_problem(capability: tuple[int, int], built_for: list[str], *, bf16: bool = False) -> str | None:
    """Why a GPU of this compute capability cannot run a torch built for `sm_70`, ..., `compute_90`; None if it can."""
    major, minor = capability
    binary = [int(arch[3:].rstrip("af")) for arch in built_for if arch.startswith("sm_")]
    portable = [int(arch[8:].rstrip("af")) for arch in built_for if arch.startswith("compute_")]
    number = 10 * major + minor
    # A binary (sm_) runs on the same major version with the same or a later minor; PTX (compute_) on the same or newer.
    if not any(arch // 10 == major and arch <= number for arch in binary) and not any(
        arch <= number for arch in portable
    ):
        advice = (
            "install a torch built for CUDA 12.6, the last to support it" if major == 7 else "install a newer torch"
        )
        return f"is sm_{number}, this torch is built for {' '.join(built_for)}: {advice}"
    return bf16_problem(capability) if bf16 else None


def bf16_problem(capability: tuple[int, int]) -> str | None:
    """Why a GPU of this compute capability cannot train in bf16; None from 8.0 on."""
    if capability >= (8, 0):
        return None
    return f"is sm_{capability[0]}{capability[1]}, which has no bf16: train with common.fp16=true common.bf16=false"
