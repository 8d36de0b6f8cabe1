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
    built_for = torch.cuda.get_arch_list()
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        name = torch.cuda.get_device_name(i)
        if f"sm_{major}{minor}" in built_for or any(arch.startswith(f"sm_{major}") for arch in built_for):
            yield f"ok  {name} (sm_{major}{minor}), {'bf16 and fp16' if major >= 8 else 'fp16, no bf16'}"
        else:
            yield (
                f"--  {name} is sm_{major}{minor}, this torch is built for {' '.join(built_for)}: "
                "for a V100 install a torch built for CUDA 12.6"
            )


def version(module: str) -> str:
    """The version of what installed a module, or '' where it can't be told."""
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return ""
