"""Plot the training curve of a fairseq run."""

import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin.errors import shortened
from mmpt_plugin.files import parse_json, replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("loss", "t2v_recall@1", "v2t_recall@1")

# Only a benchmark has these metrics, so if they are in a log, its `valid_t2v_recall@1` is the benchmark's as well.
BENCHMARK = ("t2v_recall@5", "t2v_recall@10", "v2t_recall@5", "v2t_recall@10")

# What a model that guesses reaches: in the batch, and on a benchmark, where it is the same in both directions.
CHANCE = ("chance_recall@1", "chance_t2v_recall@1", "chance_t2v_recall@5", "chance_t2v_recall@10")

# Prefixes of names in fairseq's log: every few updates, at the end of an epoch, at a validation.
INTERVAL, EPOCH, VALIDATION = "", "train_", "valid_"

Series = dict[str, dict[int, float]]


def write_curve(log: Path, path: Path) -> None:
    """Write a PNG with the loss and the in-batch recall over updates, from a log in fairseq's JSON format.

    If the run evaluated a retrieval benchmark at its validations, its recall on the held-out videos is drawn as well.
    To get such a log, train with `mmpt train`, or with `common.log_format=json common.log_file=...`.
    """
    # Imported here because only this function needs matplotlib. A bare Figure needs no display and no global state.
    from matplotlib.figure import Figure

    drawn = panels(read_log(log))
    figure = Figure(figsize=(5 * len(drawn), 3.6), layout="constrained")
    for axis, (title, series) in zip(figure.subplots(1, len(drawn)), drawn.items(), strict=True):
        for name, points in sorted(series.items()):
            updates, values = zip(*sorted(points.items()), strict=True)
            marker = {"marker": "." if len(points) < 50 else ""}
            style = {"color": "grey", "linestyle": ":"} if name.endswith(CHANCE) else marker
            axis.plot(updates, values, label=name.replace("_", " "), **style)
        axis.set_title(title)
        finish(axis, is_share="recall" in title)
        if series:
            axis.legend()
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def draw_curves(runs: Sequence[Series], colours: Sequence[str]) -> bytes:
    """A PNG with a panel for each metric and a color for each run: solid lines for training, dashed for validation.

    It contains no text but the metrics' names: matplotlib would read a run's name with a $ as a formula.
    """
    from matplotlib.figure import Figure

    metrics = [
        metric for metric in METRICS + BENCHMARK if any(name.endswith(f" {metric}") for run in runs for name in run)
    ]
    figure = Figure(figsize=(4.6 * len(metrics), 3.6), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for run, colour in zip(runs, colours, strict=True):
            for split, style in (("train", "-"), ("valid", "--")):
                points = sorted(run.get(f"{split} {metric}", {}).items())
                marker = "." if len(points) < 50 else ""
                axis.plot([x for x, _ in points], [y for _, y in points], style, color=colour, marker=marker)
        axis.set_title(metric)
        finish(axis, is_share="recall" in metric)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    return picture.getvalue()


def finish(axis: "Axes", *, is_share: bool) -> None:
    """Label the axes, with the units of the tables: percent for a share, otherwise nats."""
    from matplotlib.ticker import PercentFormatter

    axis.set_xlabel("update")
    axis.set_ylabel("share of queries" if is_share else "nats")
    if is_share:
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.grid(alpha=0.3)


def panels(series: Series) -> dict[str, Series]:
    """The curves of each panel, by its title."""
    measured = any(f"valid {metric}" in series for metric in BENCHMARK)
    drawn: dict[str, Series] = {"contrastive loss": {}, "in-batch recall@1": {}}
    if measured:
        drawn["recall on held-out videos"] = {}
    for name, points in series.items():
        if name.endswith("loss"):
            drawn["contrastive loss"][name] = points
        elif measured and name.startswith("valid "):
            drawn["recall on held-out videos"][name] = points
        else:
            drawn["in-batch recall@1"][name] = points
    return drawn


def read_log(log: Path) -> Series:
    """`train loss`, `valid loss`, `train t2v_recall@1`, ... -> update -> value.

    For a run shorter than its log interval, the averages of epochs are used. If a resumed run repeats updates, the
    later values are used.
    """
    found: dict[str, Series] = {prefix: defaultdict(dict) for prefix in (INTERVAL, EPOCH, VALIDATION)}
    for where, record in located_records(log):
        for prefix, series in found.items():
            if f"{prefix}num_updates" not in record:
                continue
            names = METRICS + (BENCHMARK if prefix == VALIDATION else ())
            for metric in names + CHANCE:
                if f"{prefix}{metric}" in record:
                    update = int(value_of(record, f"{prefix}num_updates", where))
                    series[metric][update] = value_of(record, f"{prefix}{metric}", where)
    train = found[INTERVAL] or found[EPOCH]
    if not train:
        raise ValueError(f"{log} has no training steps in fairseq's JSON format (common.log_format=json)")
    named = {"train": train, "valid": found[VALIDATION]}
    return {f"{split} {metric}": points for split, series in named.items() for metric, points in series.items()}


def value_of(record: dict[str, Any], key: str, where: str) -> float:
    """A number of a log's record, which fairseq writes as text; ValueError, with the location `where`, for another."""
    try:
        value = float(record[key])
    except (TypeError, ValueError):
        raise ValueError(f"{where}: '{key}' must be a number, got {shortened(record[key])}") from None
    if key.endswith("num_updates") and not math.isfinite(value):
        raise ValueError(f"{where}: '{key}' must be finite")
    return value


def records(log: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of a log, with or without a logger's prefix."""
    return (record for _, record in located_records(log))


def located_records(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The location and the JSON object of each line that has one."""
    for number, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        start = line.find('{"')
        if start < 0:
            continue
        try:
            yield f"{log}:{number}", parse_json(line[start:], str(log))
        except ValueError:
            continue  # other text, or the last line of a killed run
