"""The table of metrics: percent and ranks, controls only where they were measured."""

import pytest
from rich.console import Console

from mmpt_plugin.report import metrics_table, oracles_table
from mmpt_plugin.report.table import heads, rows

RESULT = {
    "task": "youcook2",
    "metrics": {"t2v_recall@1": 0.3125, "t2v_median_rank": 4.0},
    "untrained": {"t2v_recall@1": 0.0104, "t2v_median_rank": 47.0},
    "chance": {"t2v_recall@1": 0.01, "t2v_median_rank": 50.5},
}


def printed(result) -> list[list[str]]:
    """The words of each line, without the frame."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(metrics_table(result))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]


def test_recalls_are_percent_and_ranks_are_not():
    assert printed(RESULT) == [
        ["t2v_recall@1", "31.2 %", "1.0 %", "1.0 %"],
        ["t2v_median_rank", "4.0", "47.0", "50.5"],
    ]


def test_a_control_that_was_not_measured_has_no_column():
    without = {key: RESULT[key] for key in ("task", "metrics", "chance")}
    table = metrics_table(without)
    assert [column.header for column in table.columns] == ["metric", "this model", "chance"]
    assert printed(without)[0] == ["t2v_recall@1", "31.2 %", "1.0 %"]


def test_oracles_are_columns_after_the_controls():
    """On a page; the terminal has them in a table of their own."""
    oracles = {"action": {"t2v_recall@1": 0.25}, "action and ingredient": {"t2v_recall@1": 1.0, "t2v_median_rank": 1.0}}
    result = RESULT | {"oracles": oracles}
    assert heads(result)[1:] == ["this model", "untrained", "chance", "knows action", "knows action and ingredient"]
    assert rows(result) == [
        ["t2v_recall@1", "31.2 %", "1.0 %", "1.0 %", "25.0 %", "100.0 %"],
        ["t2v_median_rank", "4.0", "47.0", "50.5", "–", "1.0"],
    ]
    assert printed(result) == printed(RESULT)
    table = oracles_table(result)
    assert [column.header for column in table.columns] == ["metric", "knows action", "knows action and ingredient"]
    assert [list(column.cells) for column in table.columns] == [
        ["t2v_recall@1", "t2v_median_rank"],
        ["25.0 %", "–"],
        ["100.0 %", "1.0"],
    ]


@pytest.mark.parametrize("table", [metrics_table, oracles_table])
def test_metrics_are_named_in_full_on_a_narrow_terminal(table):
    long = {name.replace("t2v", "t2v_meaning"): 0.5 for name in RESULT["metrics"]}
    oracles = {"oracles": dict.fromkeys(["action", "ingredient", "action and ingredient"], long)}
    columns = dict.fromkeys(("metrics", "published", "untrained", "chance"), long)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table({"task": "clips"} | columns | oracles))
    assert "t2v_meaning_median_rank" in capture.get()
    assert "50.0 %" in capture.get()
    assert "…" not in capture.get()


def test_the_title_counts_the_queries_where_the_result_does():
    assert metrics_table(RESULT).title == "youcook2"
    assert metrics_table(RESULT | {"num_queries": 96}).title == "youcook2, 96 queries"
    named = RESULT | {"test_set": "YouCook2 validation", "num_queries": 96}
    assert metrics_table(named).title == "youcook2 (YouCook2 validation), 96 queries"
