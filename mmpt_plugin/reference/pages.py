"""The reference pages of the documentation, in Markdown."""

import argparse
import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.reference.configuration import (
    REQUIRED,
    SECTIONS,
    SETTINGS,
    Key,
    fairseq_keys,
    field_doc,
    keys,
    load,
    one_line,
    own_doc,
)
from mmpt_plugin.reference.lookup import FAIRSEQ_PAGES, FAIRSEQ_SECTIONS

MODEL = "mmpt_plugin.models:VideoCLIP"
METHODS = (
    *("from_pretrained", "save_pretrained", "encode_video", "encode_text", "encode_video_steps", "tokenize"),
    *("embed_videos", "embed_features", "embed_candidates", "embed_text", "classify"),
)
LOAD_MODEL = "mmpt_plugin.models:load_model"
DATA = ("mmpt_plugin.batch:Batch", "mmpt_plugin.batch:Cluster")
PROTOCOLS = "mmpt_plugin.protocols"
SPECIAL = ("__call__", "__getitem__", "__len__")
WIDTH = 88
KEYWORD_ONLY, VAR_POSITIONAL = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL


def configuration_page() -> str:
    """All configuration keys: a table for each component, then those of profiles, settings and fairseq."""
    found = keys()
    lines = [
        *("# Configuration", ""),
        "A project's YAML has these keys, and `mmpt train PROJECT KEY=VALUE` overrides one. `_name` chooses the "
        "component of a section. `mmpt help KEY` prints the same information.",
    ]
    for kind in registry.REGISTRIES:
        lines += [
            "",
            f"## {kind.kind}",
            "",
            f"Section `{SECTIONS[kind.kind]}`; `{SECTIONS[kind.kind]}._name` chooses one.",
        ]
        for name in kind:
            lines += ["", f"### {name}", "", own_doc(kind[name].cls), ""]
            lines += [f"Configuration: {about}", ""] if (about := own_doc(kind[name].config)) else []
            lines += key_table([key for key in found if (key.kind, key.component) == (kind.kind, name)])
    lines += ["", "## slurm", "", "Keys of a profile in `slurm/`; `mmpt launch ... slurm.KEY=VALUE` overrides one.", ""]
    lines += key_table([key for key in found if key.kind == "slurm"])
    for place, command in SETTINGS.items():
        config = load(place)
        lines += ["", f"## {config.__name__}", "", f"{own_doc(config)} The options of `{command}` set these.", ""]
        lines += key_table([key for key in found if (key.kind, key.component) == ("settings", command)])
    return "\n".join([*lines, "", *fairseq_part()])


def fairseq_part() -> list[str]:
    """The tables of fairseq's keys, or who documents them."""
    found, lines = fairseq_keys(), ["## fairseq", ""]
    if not found:
        names = ", ".join(f"`{section}`" for section in FAIRSEQ_SECTIONS)
        return [*lines, f"fairseq reads the sections {names} and [documents them]({FAIRSEQ_PAGES}).", ""]
    lines += ["fairseq reads these sections; the meanings are the help texts of fairseq.", ""]
    for section, component in dict.fromkeys((key.section, key.component) for key in found):
        own = [key for key in found if (key.section, key.component) == (section, component)]
        lines += [f"### {section} {component}".rstrip(), "", *key_table(own), ""]
    return lines


def command_page(parser: argparse.ArgumentParser) -> str:
    """All commands of a parser: usage, arguments and defaults."""
    lines = [f"# {parser.prog}", "", parser.description or "", ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.strip("\n"), "```", ""]
    for command, about in subcommands(parser):
        lines += [f"## {command.prog}", "", sentence(about), "", "```text", usage(command), "```", ""]
        lines += [command.description, ""] if command.description else []
        rows = [argument(command, action) for action in command._actions if takes_value(action)]
        lines += [*table(("argument", "default", "meaning"), rows), ""] if rows else []
    return "\n".join(lines)


def python_page() -> str:
    """The public Python API: signatures and docstrings."""
    model = load(MODEL)
    lines = ["# Python", "", "## Models", "", *item(model, model.__name__, doc=own_doc(model))]
    for name in METHODS:
        lines += item(getattr(model, name), f"{model.__name__}.{name}", level=4)
    lines += [*item(load(LOAD_MODEL), "load_model"), "## Data", ""]
    for cls in map(load, DATA):
        lines += item(cls, cls.__name__, doc=own_doc(cls))
        hints = typing.get_type_hints(cls)
        rows = [(code(name), code(bare(hint)), field_doc(cls, name)) for name, hint in hints.items()]
        lines += [*table(("field", "type", "meaning"), rows), ""]
    decorators = sorted(name for name in vars(registry) if name.startswith("register_"))
    lines += ["## Registration", "", "```python"]
    lines += [f"{name}{signature(getattr(registry, name))}" for name in decorators]
    return "\n".join([*lines, "```", "", inspect.getdoc(registry.Registry.register) or "", "", *protocols()])


def protocols() -> list[str]:
    """What a component of each kind must have, if there is a module of protocols."""
    if not importlib.util.find_spec(PROTOCOLS):
        return []
    lines = ["## Protocols", ""]
    for name, cls in vars(importlib.import_module(PROTOCOLS)).items():
        if getattr(cls, "_is_protocol", False) and cls.__module__ == PROTOCOLS:
            lines += item(cls, name, doc=own_doc(cls), shows_signature=False)
            for method, value in vars(cls).items():
                if inspect.isfunction(value) and (not method.startswith("_") or method in SPECIAL):
                    lines += item(value, f"{name}.{method}", level=4)
    return lines


def item(thing: Any, name: str, *, doc: str | None = None, level: int = 3, shows_signature: bool = True) -> list[str]:
    """A heading, a signature and a docstring."""
    shown = ["```python", f"{name}{signature(thing)}", "```", ""] if shows_signature else []
    return [f"{'#' * level} {name}", "", *shown, inspect.getdoc(thing) or "" if doc is None else doc, ""]


def signature(thing: Callable[..., Any]) -> str:
    """A signature without `self` and the modules of types; a long one has a parameter per line."""
    whole = inspect.signature(thing)
    whole = whole.replace(parameters=[one for one in whole.parameters.values() if one.name not in ("self", "cls")])
    if len(text := bare(str(whole))) <= WIDTH:
        return text
    rows, parameters = [], list(whole.parameters.values())
    kinds = [one.kind for one in parameters]
    first = None if VAR_POSITIONAL in kinds else next((one for one in parameters if one.kind is KEYWORD_ONLY), None)
    for one in parameters:
        rows += ["    *,"] * (one is first) + [f"    {bare(str(one))},"]
    back = whole.return_annotation
    return "\n".join(["(", *rows, ")" if back is whole.empty else f") -> {bare(inspect.formatannotation(back))}"])


def bare(hint: Any) -> str:
    """A type as code, without the modules of its classes and the marks of type variables."""
    text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])|~(?=[A-Z])", "", text)


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The commands of a parser, and theirs, each with its help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield command, about.get(name, "")
                yield from subcommands(command)


def usage(command: argparse.ArgumentParser) -> str:
    """A command's usage, in the width of a page and not of the terminal."""
    formatter = argparse.HelpFormatter(command.prog, width=WIDTH)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups)
    return formatter.format_help().strip()


def takes_value(action: argparse.Action) -> bool:
    """Whether an action is an argument of the command; --help and the commands of a parser are not."""
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def argument(command: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    """An argument's names, default and meaning."""
    formatter = argparse.HelpFormatter(command.prog)
    value = "" if action.nargs == 0 else formatter._format_args(action, action.dest.upper())
    names = [f"{name} {value}".rstrip() for name in action.option_strings] or [str(action.metavar or action.dest)]
    default = code(str(action.default)) if action.default not in (None, False, [], argparse.SUPPRESS) else ""
    if action.option_strings and action.required:
        default = REQUIRED
    choices = f"One of {', '.join(map(code, map(str, action.choices)))}." if action.choices else ""
    about = sentence(formatter._expand_help(action)) if action.help else ""
    return ", ".join(map(code, names)), default, f"{about} {choices}".strip()


def sentence(text: str) -> str:
    """Help text with a capital letter and a full stop."""
    return text and text[0].upper() + text[1:].rstrip(".") + "."


def key_table(found: Sequence[Key]) -> list[str]:
    """A table of keys."""
    rows = [(code(k.path), k.type, k.default if k.default == REQUIRED else code(k.default), k.doc) for k in found]
    return table(("key", "type", "default", "meaning"), rows) if rows else ["No keys."]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *(map(cell, row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(text: str) -> str:
    """Text as Python-Markdown's tables take it: outside of code `|` would end a cell, and `<` would begin a tag."""
    parts = re.split(r"(`[^`]*`)", one_line(text))
    escaped = (
        part if number % 2 else part.replace("<", "&lt;").replace("|", r"\|") for number, part in enumerate(parts)
    )
    return "".join(escaped)


def code(text: str) -> str:
    """Text as code; nothing for no text."""
    return f"`{text}`" if text else ""
