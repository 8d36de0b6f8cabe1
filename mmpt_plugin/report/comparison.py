"""A self-contained HTML page that compares runs: their curves, their metrics, and the settings in which they differ."""

import base64
import colorsys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from mmpt_plugin.files import replace_text
from mmpt_plugin.report.curve import Series, draw_curves
from mmpt_plugin.report.page import STYLE, html_table
from mmpt_plugin.report.runs import Run, read_runs
from mmpt_plugin.report.table import controls, oracles, shown, title_of

NOT_SET = "–"

COMPARISON_STYLE = """
h2 { margin: 2rem 0 0; }
img { max-width: 100%; }
i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; border-radius: 2px; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def write_comparison(path: Path, folders: Sequence[Path]) -> None:
    """Compare the runs of these folders in one page; runs need no metrics. See `read_runs` for the errors."""
    runs = read_runs(folders)
    colours = [colour(number, len(runs)) for number in range(len(runs))]
    picture = base64.b64encode(draw_curves([run.series for run in runs], colours)).decode()
    title = f"{len(runs)} runs"
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}{COMPARISON_STYLE}</style>
<h1>{title}</h1>
{overview(runs, colours)}
<h2>Training</h2>
<p>Solid lines are training, dashed lines validation. A loss can only be compared with one of the same criterion and the
same number of candidates.</p>
<img alt="training curves" src="data:image/png;base64,{picture}">
<h2>Settings that differ</h2>
{settings_table(runs)}
<h2>Metrics</h2>
{"".join(metrics_tables(runs)) or "<p>None of the runs has a metrics.json.</p>"}</html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page)


def overview(runs: Sequence[Run], colours: Sequence[str]) -> str:
    """A row for each run, with its color in the curves, as an HTML table."""
    lines = [
        [
            f'<i style="background:{colour}"></i>{escape(run.name)}',
            str(max(update for points in run.series.values() for update in points)),
            last(run.series, "train loss"),
            last(run.series, "valid loss"),
            escape(", ".join(str(one.get("benchmark", one["task"])) for one in run.results) or "no metrics.json"),
        ]
        for run, colour in zip(runs, colours, strict=True)
    ]
    return html_table([["run", "updates", "training loss", "validation loss", "evaluated on"], *lines])


def last(series: Series, name: str) -> str:
    """The last value of a curve, as text."""
    points = series.get(name)
    return f"{points[max(points)]:.3f}" if points else NOT_SET


def settings_table(runs: Sequence[Run]) -> str:
    """The keys of project.yaml whose values differ, with each run's value, as HTML."""
    keys = sorted({key for run in runs for key in run.settings})
    lines = [[run.settings.get(key) for run in runs] for key in keys]
    differing = [(key, line) for key, line in zip(keys, lines, strict=True) if any(value != line[0] for value in line)]
    if not differing:
        return "<p>None, except for the folder of the run.</p>"
    rows = [[escape(key), *(escape(written(value)) for value in line)] for key, line in differing]
    return html_table([["key", *(escape(run.name) for run in runs)], *rows])


def written(value: Any) -> str:
    """A setting as YAML in one line, and a dash for one that is not set."""
    if value is None:
        return NOT_SET
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def metrics_tables(runs: Sequence[Run]) -> Iterable[str]:
    """For each benchmark, the metrics of the runs that were evaluated on the same data, and their controls, as HTML."""
    groups: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for run in runs:
        for result in run.results:
            groups.setdefault(benchmark(result), []).append((run.name, result))
    names = [name for name, _ in groups]
    for (name, checksum), members in groups.items():
        columns = [(run, result["metrics"]) for run, result in members] + list(common_controls(members))
        metrics = dict.fromkeys(metric for _, result in members for metric in result["metrics"])
        rows = [[metric, *(shown(metric, values.get(metric)) for _, values in columns)] for metric in metrics]
        lines = [["metric", *(head for head, _ in columns)], *rows]
        which = f", annotations {checksum[:8]}" if names.count(name) > 1 else ""
        yield f"<h3>{escape(name + which)}</h3>" + html_table([[escape(cell) for cell in line] for line in lines])


def benchmark(result: Mapping[str, Any]) -> tuple[str, str]:
    """The title of a result's table, and the checksum of its annotations: only equal ones can be compared."""
    return title_of(result), str(result.get("data", {}).get("annotations_sha256", ""))


def common_controls(members: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterable[tuple[str, Mapping[str, float]]]:
    """The controls and oracles that have the same values in all results, such as chance."""
    first, *others = (controls(result) | oracles(result) for _, result in members)
    return [(name, values) for name, values in first.items() if all(other.get(name) == values for other in others)]


def colour(number: int, count: int) -> str:
    """One of `count` colors of different hue, `#rrggbb`."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(number / count + 0.6, 0.42, 0.75))
