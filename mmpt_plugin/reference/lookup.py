"""`mmpt help KEY`: the description of a key, a component or a section, as text for a terminal."""

import difflib
import importlib.util
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from mmpt_plugin.reference.configuration import (
    REQUIRED,
    SECTIONS,
    Key,
    components,
    fairseq_keys,
    keys,
    one_line,
    own_doc,
)
from mmpt_plugin.registry import Entry

FAIRSEQ_SECTIONS = (
    *("common", "distributed_training", "dataset", "optimization", "checkpoint", "optimizer", "lr_scheduler"),
)
FAIRSEQ_PAGES = "https://fairseq.readthedocs.io/en/latest/command_line_tools.html#fairseq-train"
WIDTH = 100


def describe(query: str) -> str:
    """The type, the default and the meaning of a key, and the components that have it.

    `query` is the path of a key, its last part, the name of a component, or a section; the old name of a key is
    accepted too. Anything else is a ValueError, which names the closest match.
    """
    known, query = [*keys(), *fairseq_keys()], spelled(query)
    if exact := [key for key in known if key.path == query]:
        return "\n\n".join(filter(None, [text_of(exact), text_of_section(query, known)]))
    if new := renamed().get(query):
        return f"{query} is now {new}\n\n{describe(new)}"
    parts = [text_of_component(kind, entry, known) for kind, entry in components() if entry.name == query]
    parts.append(text_of_section(query, known))
    parts.append(text_of([key for key in known if key.name == query]))
    if not any(parts):
        parts.append(text_of([key for key in known if key.component == query]))
    return "\n\n".join(filter(None, parts)) or not_installed(query) or refuse(query, known)


def overview() -> str:
    """The sections of the configuration, and examples of `mmpt help`."""
    names: dict[str, list[str]] = {}
    for kind, entry in components():
        names.setdefault(SECTIONS[kind], []).append(entry.name)
    listed = (f"  {section}\n{wrapped(', '.join(sorted(own)))}" for section, own in names.items())
    return "\n".join(
        [
            "Sections of a project, and their components, chosen by _name:",
            *listed,
            "Sections of a project that fairseq reads:",
            wrapped(", ".join(FAIRSEQ_SECTIONS)),
            "Section of a SLURM profile:",
            wrapped("slurm"),
            "",
            "mmpt help criterion.temperature   one key: type, default and meaning",
            "mmpt help temperature             this key in every section and component",
            "mmpt help nce                     a component with all its keys",
            "mmpt help criterion               the components of a section, or its keys",
        ]
    )


def spelled(query: str) -> str:
    """The documented path of a key: `task.finetune.dataset.splits.train.frames` becomes `task.dataset.frames`."""
    query = re.sub(r"^task\.sampler\b", "sampler", query.strip())
    query = re.sub(r"^task\.(finetune|benchmark)\.(?=dataset\b)", "task.", query)
    return re.sub(r"\.splits\.\w+(?=\.)", "", query).removesuffix("._name")


def renamed() -> dict[str, str]:
    """Old path of each renamed key -> new path, which may be in another section."""
    return {
        f"{SECTIONS[kind]}.{old}": new if "." in new else f"{SECTIONS[kind]}.{new}"
        for kind, entry in components()
        for old, new in getattr(entry.config, "RENAMED", {}).items()
    }


def text_of(found: Sequence[Key], *, owners: bool = True) -> str:
    """The descriptions of keys; keys that differ only in their component are one entry, which lists the components."""
    same: dict[tuple[str, str, str, str], list[Key]] = {}
    for key in found:
        same.setdefault((key.path, key.type, key.default, key.doc), []).append(key)
    entries = []
    for (path, type_, default, doc), group in same.items():
        head = f"{path} ({type_}, {default if default == REQUIRED else f'default {default}'})"
        whose = wrapped(f"({owned(group)})") if owners else ""
        entries.append("\n".join(filter(None, [head, whose, wrapped(doc)])))
    return "\n\n".join(entries)


def owned(group: Sequence[Key]) -> str:
    """The components that have a key: `criterion best_fit_nce, mil_nce`."""
    kind, names = group[0].kind, ", ".join(dict.fromkeys(key.component for key in group if key.component))
    if kind == "settings":
        return f"set by the options of {names}"
    if kind == "slurm":
        return "profile of mmpt launch"
    return f"{kind} {names}".rstrip()


def text_of_component(kind: str, entry: Entry[Any], known: Sequence[Key]) -> str:
    """The description of a component: its docstring, that of its config, and its keys."""
    about = [textwrap.indent(doc, "    ") for doc in (own_doc(entry.cls), own_doc(entry.config)) if doc]
    own = [key for key in known if (key.kind, key.component) == (kind, entry.name)]
    return "\n\n".join(filter(None, [f"{kind} {entry.name}", *about, text_of(own, owners=False)]))


def text_of_section(section: str, known: Sequence[Key]) -> str:
    """The components of a section, or for a section without `_name` its keys."""
    rows = [(entry.name, summary(own_doc(entry.cls))) for kind, entry in components() if SECTIONS[kind] == section]
    of_section = [key for key in known if key.section == section and key.kind in ("slurm", "fairseq")]
    rows += [(name, "") for name in dict.fromkeys(key.component for key in of_section if key.component)]
    if not rows:
        return text_of(of_section, owners=False)
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{section}._name is one of", *(f"    {name:{width}}  {about}".rstrip() for name, about in rows)])


def summary(doc: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return one_line(doc.partition("\n\n")[0])


def wrapped(text: str) -> str:
    """An indented paragraph."""
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def not_installed(query: str) -> str:
    """Where to find the keys of a section whose package is not installed; "" for other sections."""
    section = query.partition(".")[0]
    if section in FAIRSEQ_SECTIONS and not importlib.util.find_spec("fairseq"):
        return f"{query}: fairseq documents this section and is not installed, see {FAIRSEQ_PAGES}"
    if section == "slurm" and not importlib.util.find_spec("submitit"):
        return f"{query}: the keys of profiles need submitit: pip install 'mmpt_plugin[slurm]'"
    return ""


def refuse(query: str, known: Sequence[Key]) -> str:
    """Raise a ValueError with the closest match."""
    sections = {*SECTIONS.values(), *FAIRSEQ_SECTIONS, "slurm"}
    possible = {word for key in known for word in (key.path, key.name, key.component) if word} | sections
    close = difflib.get_close_matches(query.lower(), sorted(possible), n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(f"no key '{query}'.{hint} Sections: {sorted(sections)}")
