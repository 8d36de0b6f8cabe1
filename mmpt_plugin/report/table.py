"""Tables of metrics and their controls, for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

CONTROLS = ("published", "untrained", "constant_background", "chance")

Values = Mapping[str, float]


def metrics_table(result: Mapping[str, Any]) -> Table:
    """One row per metric; a column for the model and one for each control in the result."""
    return table_of(title_of(result), result["metrics"], {"this model": result["metrics"]} | controls(result))


def title_of(result: Mapping[str, Any]) -> str:
    """The benchmark, or else the task, with its test set and number of queries as far as the result has them."""
    test_set = f" ({result['test_set']})" if "test_set" in result else ""
    queries = f", {result['num_queries']} queries" if "num_queries" in result else ""
    return f"{result.get('benchmark', result['task'])}{test_set}{queries}"


def oracles_table(result: Mapping[str, Any]) -> Table:
    """The oracles of the result; a terminal is too narrow for them next to the controls."""
    return table_of("what a searcher reaches who knows nothing else", result["metrics"], oracles(result))


def table_of(title: str, names: Iterable[str], columns: Mapping[str, Values]) -> Table:
    """A table for the terminal with a row for each name; the names are never cut."""
    table = Table(title=title)
    table.add_column("metric", no_wrap=True)
    for head in columns:
        table.add_column(head, justify="right")
    for name in names:
        table.add_row(name, *(shown(name, values.get(name)) for values in columns.values()))
    return table


def heads(result: Mapping[str, Any]) -> list[str]:
    """The column titles; controls and oracles that the result lacks have no column."""
    return ["metric", "this model", *controls(result), *oracles(result)]


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A metric's name, the model's value, and the values of the controls and oracles."""
    columns = [result["metrics"], *controls(result).values(), *oracles(result).values()]
    return [[name, *(shown(name, column.get(name)) for column in columns)] for name in result["metrics"]]


def controls(result: Mapping[str, Any]) -> dict[str, Values]:
    """The values of the result's controls by the title of their column."""
    return {control: result[control] for control in CONTROLS if control in result}


def oracles(result: Mapping[str, Any]) -> dict[str, Values]:
    """The values of the result's oracles by the title of their column."""
    return {f"knows {known}": values for known, values in result.get("oracles", {}).items()}


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
