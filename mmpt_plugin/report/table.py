"""A result's metrics beside its controls, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

CONTROLS = ("untrained", "chance")


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A row a metric: its name, the result's value, and the controls' values where there are some."""
    columns = [result["metrics"], *(result[control] for control in CONTROLS if control in result)]
    return [[name, *(shown(name, column[name]) for column in columns)] for name in result["metrics"]]


def shown(name: str, value: float) -> str:
    """Shares as percent, ranks as they are."""
    return f"{value:.1f}" if name.endswith("_rank") else f"{100 * value:.1f} %"


def metrics_table(result: Mapping[str, Any]) -> Table:
    table = Table(title=f"{result['task']}, {result['num_queries']} queries")
    table.add_column("metric")
    for name in ("this model", *(control for control in CONTROLS if control in result)):
        table.add_column(name, justify="right")
    for row in rows(result):
        table.add_row(*row)
    return table
