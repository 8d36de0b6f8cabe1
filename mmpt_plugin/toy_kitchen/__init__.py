"""The embedded data set: narrated cooking cartoons, made rather than downloaded (docs/explanation/toy_kitchen.md)."""

from mmpt_plugin.toy_kitchen.generate import generate

__all__ = ["generate"]
