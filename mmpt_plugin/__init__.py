"""VideoCLIP and its family: a fairseq `--user-dir` plugin, and a plain PyTorch library where there is no fairseq."""

import sys

from mmpt_plugin import criterions, datasets, models, registry, samplers, tasks
from mmpt_plugin.models import VideoCLIP

if sys.modules.get("fairseq") is not None:
    from mmpt_plugin.fairseq_bridge import install

    install()

__all__ = ["VideoCLIP", "criterions", "datasets", "models", "registry", "samplers", "tasks"]
