"""What this machine can run, and what to install for what it can't."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator

import torch

NEEDS = (
    (
        "train",
        "fairseq",
        "fairseq",
        "pip install 'mmpt_plugin[fairseq]', then requirements/fairseq.txt (see README)",
    ),
    ("retrieval-augmented batches", "faiss", "faiss-cpu or faiss-gpu", "pip install 'mmpt_plugin[index]'"),
    ("decode videos", "av", "av", "pip install 'mmpt_plugin[video]'"),
    ("launch on SLURM", "submitit", "submitit", "pip install 'mmpt_plugin[slurm]'"),
)


def examine() -> Iterator[str]:
    """One line a finding, `ok` or `--` first."""
    yield f"ok  Python {platform.python_version()}, torch {torch.__version__}"
    yield from gpus()
    for purpose, module, distribution, advice in NEEDS:
        if importlib.util.find_spec(module) is None:
            yield f"--  {purpose}: no {distribution}. {advice}"
        else:
            yield f"ok  {purpose}: {module} {version(module)}"
    installed = [name for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11") if version(name)]
    if len(installed) > 1:
        yield f"--  {' and '.join(installed)} are installed: they overwrite each other, keep one"


def gpus() -> Iterator[str]:
    if not torch.cuda.is_available():
        yield "--  no CUDA device: training and extraction run on the CPU"
        return
    for i in range(torch.cuda.device_count()):
        problem = gpu_problem(torch.cuda.get_device_capability(i), torch.cuda.get_arch_list())
        major, minor = torch.cuda.get_device_capability(i)
        precision = "bf16 and fp16" if major >= 8 else "fp16, no bf16; attention without flash kernels"
        name = torch.cuda.get_device_name(i)
        yield f"--  {name} {problem}" if problem else f"ok  {name} (sm_{major}{minor}), {precision}"


def gpu_problems(*, bf16: bool) -> Iterator[str]:
    """Why this machine's GPUs can't train, a line each; nothing where they can, or there are none."""
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        capability = torch.cuda.get_device_capability(i)
        if problem := gpu_problem(capability, torch.cuda.get_arch_list(), bf16=bf16):
            yield f"{torch.cuda.get_device_name(i)} {problem}"


def gpu_problem(capability: tuple[int, int], built_for: list[str], *, bf16: bool = False) -> str | None:
    """What keeps a GPU of this compute capability from work under a torch built for `sm_70`, ..., `compute_90`."""
    major, minor = capability
    binary = [int(arch[3:].rstrip("af")) for arch in built_for if arch.startswith("sm_")]
    portable = [int(arch[8:].rstrip("af")) for arch in built_for if arch.startswith("compute_")]
    number = 10 * major + minor
    # A binary runs on its own major version from its own minor on; what is kept as PTX, on all that is newer.
    if not any(arch // 10 == major and arch <= number for arch in binary) and not any(
        arch <= number for arch in portable
    ):
        advice = (
            "install a torch built for CUDA 12.6, the last that knows it" if major == 7 else "install a newer torch"
        )
        return f"is sm_{number}, this torch is built for {' '.join(built_for)}: {advice}"
    return bf16_problem(capability) if bf16 else None


def bf16_problem(capability: tuple[int, int]) -> str | None:
    if capability >= (8, 0):
        return None
    return f"is sm_{capability[0]}{capability[1]}, which has no bf16: train with common.fp16=true common.bf16=false"


def version(module: str) -> str:
    """The version of what installed a module, or '' where it can't be told."""
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return ""
