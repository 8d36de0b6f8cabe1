"""Training data sets: `dataset[Cluster]` is a batch."""

import lazy_loader

from mmpt_plugin import moved

_import_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = moved.attributes(__name__, _import_name)
