"""Tables of metrics and their controls, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

CONTROLS = ("published", "untrained", "constant_background", "chance")

Values = Mapping[str, float]


def metrics_table(result: Mapping[str, Any]) -> Table:
    """One row per metric; a column for the model and one for each control in the result."""
    test_set = f" ({result['test_set']})" if "test_set" in result else ""
    queries = f", {result['num_queries']} queries" if "num_queries" in result else ""
    table = Table(title=f"{result.get('benchmark', result['task'])}{test_set}{queries}")
    first, *others = heads(result)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    for row in rows(result):
        table.add_row(*row)
    return table


def heads(result: Mapping[str, Any]) -> list[str]:
    """The column titles; controls that the result lacks have no column."""
    return ["metric", "this model", *controls(result)]


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A metric's name, the model's value, and the controls' values."""
    columns = [result["metrics"], *controls(result).values()]
    return [[name, *(shown(name, column.get(name)) for column in columns)] for name in result["metrics"]]


def controls(result: Mapping[str, Any]) -> dict[str, Values]:
    """The values next to those of the model by the title of their column: its controls, then its oracles."""
    oracles = {f"knows {known}": values for known, values in result.get("oracles", {}).items()}
    return {control: result[control] for control in CONTROLS if control in result} | oracles


def not_there_table(not_there: Mapping[str, Mapping[str, str]]) -> Table:
    """One row per benchmark that could not be evaluated."""
    table = Table(title="not on this machine")
    for head in ("benchmark", "what is missing", "where to get it"):
        table.add_column(head, overflow="fold")
    for name, of in not_there.items():
        table.add_row(name, of["missing"], of["source"])
    return table


def shown(name: str, value: float | None) -> str:
    """Shares in percent, ranks as they are, and a dash for an unknown value."""
    if value is None:
        return "–"
    return f"{value:.1f}" if name.endswith("_rank") else f"{100 * value:.1f} %"
