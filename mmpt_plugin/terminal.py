"""Print text to a terminal. Text of files, and their names, are shown as they are: nothing in them is a command."""

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 10_000  # characters of a line
# Control characters, what reverses the direction of writing, line separators, and what is not UTF-8 in a file's name.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""The text with control characters written as `\x1b`; line breaks and tabs stay."""
    return UNSAFE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(text: object) -> str:
    """The printable text with its lines joined by blanks, and at most LONGEST characters."""
    line = " ".join(line.strip() for line in printable(text).split("\n") if line.strip())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def say(*texts: object, file: Any = None, flush: bool = False) -> None:
    """Print printable text. The command line prints with this function and `console` alone."""
    print(*map(printable, texts), file=file, flush=flush)


def console(**options: Any) -> "Console":
    """A rich console for tables, in whose cells neither `[red]` nor control characters have a meaning."""
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **settings: Any) -> Any:
            return super().render_str(printable(text), **settings)

    return PlainConsole(markup=False, emoji=False, **options)


def log_to_stderr() -> None:
    """Show log messages on stderr, printable."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class PrintableFormatter(logging.Formatter):
    """A log format whose messages are printable."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return printable(super().format(record))
