"""One-line error messages."""

import difflib
from collections.abc import Sequence


def unknown_name(kind: str, name: str, possible: list[str], *, guess: str | None = None) -> str:
    """`no model 'videoclp'. Did you mean 'videoclip'? Possible: [...]`."""
    close = difflib.get_close_matches(guess or name, possible, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"no {kind} '{name}'.{hint} Possible: {sorted(possible)}"


def first_ten(problems: Sequence[str]) -> str:
    """`missing a; unexpected b and 3 more`: the first ten problems, and the number of the others."""
    more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{'; '.join(problems[:10])}{more}"


def first_line(error: Exception) -> str:
    """The message up to its first line break; the `repr` if the message is empty."""
    return next(iter(str(error).splitlines()), repr(error))
