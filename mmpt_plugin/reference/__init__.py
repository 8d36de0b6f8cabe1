"""The reference documentation of configuration keys and commands, generated from the code."""

from mmpt_plugin.reference.configuration import Key, fairseq_keys, field_doc, keys
from mmpt_plugin.reference.lookup import describe, overview
from mmpt_plugin.reference.pages import command_page, configuration_page

__all__ = [
    "Key",
    "command_page",
    "configuration_page",
    "describe",
    "fairseq_keys",
    "field_doc",
    "keys",
    "overview",
]
