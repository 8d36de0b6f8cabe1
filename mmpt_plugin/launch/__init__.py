"""Run jobs on SLURM, or in local processes with the same behaviour: resources, submission, restarts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
