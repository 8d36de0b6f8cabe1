"""The reference pages of the documentation site, in Markdown."""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence

from mmpt_plugin import registry
from mmpt_plugin.reference.configuration import (
    REQUIRED,
    SECTIONS,
    SETTINGS,
    Key,
    fairseq_keys,
    keys,
    load,
    one_line,
    own_doc,
)
from mmpt_plugin.reference.lookup import FAIRSEQ_PAGES, FAIRSEQ_SECTIONS

WIDTH = 88


def configuration_page() -> str:
    """The page of all configuration keys: one table per component, then profiles, settings and fairseq."""
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
    """The tables of fairseq's keys, or a link to its documentation if it is not installed."""
    found, lines = fairseq_keys(), ["## fairseq", ""]
    if not found:
        names = ", ".join(f"`{section}`" for section in FAIRSEQ_SECTIONS)
        return [*lines, f"fairseq reads the sections {names} and [documents them]({FAIRSEQ_PAGES}).", ""]
    lines += ["fairseq reads these sections. The descriptions are fairseq's own help texts.", ""]
    for section, component in dict.fromkeys((key.section, key.component) for key in found):
        own = [key for key in found if (key.section, key.component) == (section, component)]
        lines += [f"### {section} {component}".rstrip(), "", *key_table(own), ""]
    return lines


def command_page(parser: argparse.ArgumentParser) -> str:
    """The page of all commands of a parser: usage, arguments and defaults."""
    lines = [f"# {parser.prog}", "", parser.description or "", ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.strip("\n"), "```", ""]
    for command, about in subcommands(parser):
        lines += [f"## {command.prog}", "", sentence(about), "", "```text", usage(command), "```", ""]
        lines += [command.description, ""] if command.description else []
        rows = [argument(command, action) for action in command._actions if takes_value(action)]
        lines += [*markdown_table(("argument", "default", "meaning"), rows), ""] if rows else []
    return "\n".join(lines)


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield the subcommands of a parser, recursively, each with its help text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield command, about.get(name, "")
                yield from subcommands(command)


def usage(command: argparse.ArgumentParser) -> str:
    """The usage of a command, wrapped at WIDTH, which does not depend on the terminal."""
    formatter = argparse.HelpFormatter(command.prog, width=WIDTH)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups)
    return formatter.format_help().strip()


def takes_value(action: argparse.Action) -> bool:
    """Whether an action is an argument of the command, as opposed to --help and subcommands."""
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def argument(command: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    """The names, the default and the meaning of an argument."""
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
    """Help text that begins with a capital letter and ends with a period."""
    return text and text[0].upper() + text[1:].rstrip(".") + "."


def key_table(found: Sequence[Key]) -> list[str]:
    """The lines of a table of keys."""
    rows = [(code(k.path), k.type, k.default if k.default == REQUIRED else code(k.default), k.doc) for k in found]
    return markdown_table(("key", "type", "default", "meaning"), rows) if rows else ["No keys."]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *(map(cell, row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(text: str) -> str:
    """Escape text for a table cell of Python-Markdown: outside of code, `|` ends a cell and `<` begins a tag."""
    parts = re.split(r"(`[^`]*`)", one_line(text))
    escaped = (
        part if number % 2 else part.replace("<", "&lt;").replace("|", r"\|") for number, part in enumerate(parts)
    )
    return "".join(escaped)


def code(text: str) -> str:
    """Text as inline code; empty text is unchanged."""
    return f"`{text}`" if text else ""
