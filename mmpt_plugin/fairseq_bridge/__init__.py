"""The only code that imports fairseq: every registered component, seen by fairseq under the same name.

Import this package where fairseq is installed, and call `install()`; `mmpt_plugin` does so by itself when
fairseq imports it as a user directory.
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

from mmpt_plugin.fairseq_bridge.criterion import mirror_criterion
from mmpt_plugin.fairseq_bridge.model import mirror_model
from mmpt_plugin.fairseq_bridge.optimizer import BackboneAdam
from mmpt_plugin.fairseq_bridge.task import mirror_task

__all__ = ["BackboneAdam", "install"]

OMEGACONF: list[Any] = [
    *(DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode),
    *(Any, dict, list, int, defaultdict),
]


@cache
def install() -> None:
    """Mirror the models, criterions and tasks there are, and all that come, into fairseq's registries."""
    # torch >= 2.6 refuses what fairseq keeps beside tensors: in files the flags of `fairseq-train`, and in what
    # rank 0 sends the others on resuming, the configuration itself.
    torch.serialization.add_safe_globals([argparse.Namespace, _TensorPlaceholder, *OMEGACONF])
    registry.models.subscribe(mirror_model)
    registry.criterions.subscribe(mirror_criterion)
    registry.tasks.subscribe(mirror_task)
