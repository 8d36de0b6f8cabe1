"""VideoCLIP and its family: a fairseq `--user-dir` plugin, and a plain PyTorch library without fairseq.

Importing the package loads neither torch nor transformers: names are imported when they are used (PEP 562). What is
public is listed in `__init__.pyi`.
"""

import sys

import lazy_loader

from mmpt_plugin import moved

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

moved.install_finder()

if sys.modules.get("fairseq") is not None:  # fairseq imports the package as a user directory
    from mmpt_plugin.fairseq_bridge import install

    install()
