"""The embedded data set: narrated cooking cartoons, made rather than downloaded (docs/toy_kitchen.md)."""

from mmpt_plugin.datasets.toy_kitchen.generate import generate

__all__ = ["generate"]
