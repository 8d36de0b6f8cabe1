"""Samplers: they choose the clusters of videos that make up each epoch's batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
