"""`mmpt doctor`: list what this machine can run, and what a project needs to be trained on it."""

import argparse
import importlib.metadata
import importlib.util
import logging
import platform
from collections.abc import Generator, Iterator
from typing import Any

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say

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
    command = commands.add_parser(
        "doctor",
        help="list what this machine can run, and what is missing; with a project, what its training needs",
        description="Without a project, list what this machine can run, and how to install what is missing. With a "
        "project, check its weights, data, model and folder, count its updates, and estimate its GPU memory and time. "
        "Exit with status 2 if something would stop the training.",
    )
    command.add_argument("project", nargs="?", help="a project to train: a YAML file, or a name (mmpt list)")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the YAML file")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.project is None:
        for line in examine():
            say(line)
        return 0
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it reports which processor it looks for
    lines = list(examine_project(arguments.project, arguments.overrides))
    say("\n".join(lines))
    return 2 if any(line.startswith("--") for line in lines) else 0


def examine_project(project: str, overrides: list[str]) -> Iterator[str]:
    """Yield one line per finding about a training project, as `examine` does for the machine."""
    from mmpt_plugin.config import load_project, overridden, plain
    from mmpt_plugin.tasks import preflight
    from mmpt_plugin.tasks.estimate import estimate_cost
    from mmpt_plugin.tasks.finetuning import fine_tuned
    from mmpt_plugin.tasks.project import with_sizes

    composed = plain(load_project(project, overrides))
    if not isinstance(composed.get("checkpoint"), dict):
        raise ValueError(f"'{project}' evaluates: mmpt evaluate says what is missing. mmpt doctor checks a training")
    composed = fine_tuned(composed)
    if all(finding.ok for finding in preflight.weights_and_tokenizers(composed)):
        try:
            composed = with_sizes(composed, given=overridden(overrides))
        except ValueError as error:
            yield f"--  {error}"
            return
    found = preflight.examine(composed)
    for finding in found.findings:
        yield f"{'ok' if finding.ok else '--'}  {finding.line}"
    updates = yield from number_of_updates(composed, found.sampler)
    if found.model is not None and found.dataset is not None:
        cost = estimate_cost(composed, found.model, found.dataset)
        yield from memory_line(cost.memory)
        if updates:
            yield f"ok  estimate of the time: {cost.time(updates)}"


def number_of_updates(project: dict[str, Any], sampler: Any) -> Generator[str, None, int]:
    """Yield a line with the number of updates, if the data are there, or with the setting that can't be used.

    Returns the number; 0 if it is not known.
    """
    try:
        from mmpt_plugin.fairseq_bridge.schedule import total_updates
        from mmpt_plugin.fairseq_bridge.train import check_complete, fairseq_config

        check_complete(project)
        whole = fairseq_config(project)
    except ModuleNotFoundError as error:
        yield f"--  train: {error}, see mmpt doctor"
        return 0
    except ValueError as error:
        yield f"--  {error}"
        return 0
    if (clusters := getattr(sampler, "num_clusters", None)) is None:
        return 0
    processes, epochs = whole.distributed_training.distributed_world_size, whole.optimization.max_epoch or 0
    updates = total_updates(
        clusters,
        batch_size=whole.dataset.batch_size or 1,
        world_size=processes,
        update_freq=whole.optimization.update_freq,
        max_epoch=epochs,
        max_update=whole.optimization.max_update or 0,
    )
    counted = f"epochs {epochs}, clusters of videos in an epoch {clusters:,}, processes {processes}"
    yield f"ok  {updates:,} updates: {counted}"
    return updates


def memory_line(memory: Any) -> Iterator[str]:
    """Yield a line with the estimate of the memory, a problem if the smallest GPU of this machine has less."""
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    fits = not sizes or memory.weights + memory.activations <= min(sizes)
    here = f"; the smallest GPU here has {min(sizes) / 2**30:.1f} GiB" if sizes else ""
    yield f"{'ok' if fits else '--'}  estimate of the memory of each GPU: {memory}{here}"


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
