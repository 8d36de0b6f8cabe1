"""The fairseq adapters: registers every component of mmpt_plugin with fairseq under the same name.

Only this package imports fairseq. If fairseq is installed, import this package and call `install()`; `mmpt_plugin` does
so itself when fairseq imports it as a user directory.
"""

import argparse
from collections import defaultdict
from functools import cache
from typing import Any

import torch
from omegaconf import AnyNode, DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata

from mmpt_plugin import registry
from mmpt_plugin.fairseq_bridge.importing import hashable_dataclasses

with hashable_dataclasses("fairseq"):
    from fairseq.distributed.utils import _TensorPlaceholder

from mmpt_plugin.fairseq_bridge.console import keep_metric_names
from mmpt_plugin.fairseq_bridge.criterion import mirror_criterion
from mmpt_plugin.fairseq_bridge.model import mirror_model
from mmpt_plugin.fairseq_bridge.optimizer import BackboneAdam, FusedAdamW
from mmpt_plugin.fairseq_bridge.schedule import WarmupCosine
from mmpt_plugin.fairseq_bridge.task import mirror_task

__all__ = ["BackboneAdam", "FusedAdamW", "WarmupCosine", "install"]

OMEGACONF: list[Any] = [
    *(DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode),
    *(Any, dict, list, int, defaultdict),
]


@cache
def install() -> None:
    """Register the existing and all future models, criterions and tasks with fairseq."""
    # With torch >= 2.6, torch.load rejects objects that fairseq stores next to tensors: the flags of `fairseq-train` in
    # checkpoints, and the configuration in the state that rank 0 sends to the other ranks when a run resumes.
    torch.serialization.add_safe_globals([argparse.Namespace, _TensorPlaceholder, *OMEGACONF])
    keep_metric_names()
    registry.models.subscribe(mirror_model)
    registry.criterions.subscribe(mirror_criterion)
    registry.tasks.subscribe(mirror_task)
