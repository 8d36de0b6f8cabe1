"""One-line error messages."""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

KINDS: dict[Any, str] = {str: "a text", int: "an integer", (int, float): "a number", list: "a list", dict: "an object"}
KINDS[(str, int)] = "a text or an integer"
HALF_PAIR = "half of a surrogate pair"  # which JSON, YAML and pickles can express, but not UTF-8


class SeveralProblems(ValueError):
    """An error whose message has one line for each of several problems; other messages are shown in one line."""


def unknown_name(kind: str, name: str, possible: list[str], *, guess: str | None = None) -> str:
    """`no model 'videoclp'. Did you mean 'videoclip'? Possible: [...]`."""
    close = difflib.get_close_matches(str(guess or name), possible, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"no {kind} '{name}'.{hint} Possible: {sorted(possible)}"


def first_ten(problems: Sequence[str]) -> str:
    """`missing a; unexpected b and 3 more`: the first ten problems, and the number of the others."""
    more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{'; '.join(problems[:10])}{more}"


def first_line(error: Exception) -> str:
    """The message up to its first line break, with `str` for `<class 'str'>`; the `repr` if the message is empty."""
    return re.sub(r"<class '([\w.]+)'>", r"\1", next(iter(str(error).splitlines()), repr(error)))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it, each once: a chain may be a ring."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def require(record: Any, key: str, kind: Any, where: str) -> Any:
    """`record[key]`; ValueError, which names the location `where`, if it is missing or not of the type `kind`."""
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with '{key}', got {shortened(record)}")
    if key not in record:
        raise ValueError(f"{where}: '{key}' is missing, there is only {', '.join(map(str, record)) or 'nothing'}"[:300])
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: '{key}' must be {KINDS.get(kind, kind)}, got {shortened(value)}")
    return value


def shortened(value: Any) -> str:
    """A value as JSON, with at most 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
