"""Jobs on SLURM, or on this machine as if it were a cluster: where they run, what they do, how they survive."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
