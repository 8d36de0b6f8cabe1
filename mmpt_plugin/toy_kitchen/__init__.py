"""The toy dataset: narrated cooking cartoons, generated rather than downloaded (docs/explanation/toy_kitchen.md)."""

from mmpt_plugin.toy_kitchen.generate import generate

__all__ = ["generate"]
