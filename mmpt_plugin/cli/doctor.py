"""`mmpt doctor`: list what this machine can run, and how to install what is missing."""

import argparse
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator

from mmpt_plugin.cli.arguments import Commands

NEEDS = (
    (
        "train",
        "fairseq",
        "fairseq",
        "pip install 'mmpt_plugin[fairseq]', then requirements/fairseq.txt (see README)",
    ),
    ("retrieval-augmented batches", "faiss", "faiss-cpu", "pip install 'mmpt_plugin[index]'"),
    ("decode videos", "av", "av", "pip install 'mmpt_plugin[video]'"),
    ("search videos", "lancedb", "lancedb", "pip install 'mmpt_plugin[search]'"),
    ("search in a Milvus server", "pymilvus", "pymilvus", "pip install 'mmpt_plugin[milvus]'"),
    ("launch on SLURM", "submitit", "submitit", "pip install 'mmpt_plugin[slurm]'"),
)


def add(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="list what this machine can run, and how to install what is missing")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    for line in examine():
        print(line)


def examine() -> Iterator[str]:
    """Yield one line per finding, which begins with `ok`, or with `--` for a problem."""
    import torch

    from mmpt_plugin.hardware import has_avx2

    yield f"ok  Python {platform.python_version()}, torch {torch.__version__}"
    yield from gpus()
    for purpose, module, distribution, advice in NEEDS:
        if importlib.util.find_spec(module) is None:
            yield f"--  {purpose}: no {distribution}. {advice}"
        else:
            yield f"ok  {purpose}: {module} {version(module)}"
    if not has_avx2():
        yield "--  search videos: this processor has no AVX2, which LanceDB needs. Use a Milvus server"
    installed = [name for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11") if version(name)]
    if len(installed) > 1:
        yield f"--  {' and '.join(installed)} are installed and overwrite each other: uninstall all but one"


def gpus() -> Iterator[str]:
    """Yield one line per GPU."""
    import torch

    from mmpt_plugin.hardware import gpu_problem

    if not torch.cuda.is_available():
        yield "--  no CUDA device: training and extraction run on the CPU"
        return
    for i in range(torch.cuda.device_count()):
        problem = gpu_problem(torch.cuda.get_device_capability(i), torch.cuda.get_arch_list())
        major, minor = torch.cuda.get_device_capability(i)
        precision = "bf16 and fp16" if major >= 8 else "fp16, no bf16; attention without flash kernels"
        name = torch.cuda.get_device_name(i)
        yield f"--  {name} {problem}" if problem else f"ok  {name} (sm_{major}{minor}), {precision}"


def version(module: str) -> str:
    """The version of the distribution that provides a module; '' if it is unknown."""
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return ""
