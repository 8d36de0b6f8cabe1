"""One-line error messages."""

import difflib


def unknown_name(kind: str, name: str, possible: list[str], *, guess: str | None = None) -> str:
    """`no model 'videoclp'. Did you mean 'videoclip'? Possible: [...]`."""
    close = difflib.get_close_matches(guess or name, possible, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"no {kind} '{name}'.{hint} Possible: {sorted(possible)}"


def first_line(error: Exception) -> str:
    """The message up to its first line break; the `repr` if the message is empty."""
    return next(iter(str(error).splitlines()), repr(error))
