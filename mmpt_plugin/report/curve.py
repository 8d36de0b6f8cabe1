"""Plot the training curve of a fairseq run."""

import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpt_plugin.files import atomic_write

METRICS = ("loss", "t2v_recall@1", "v2t_recall@1")

# Prefixes of names in fairseq's log: every few updates, at the end of an epoch, at a validation.
INTERVAL, EPOCH, VALIDATION = "", "train_", "valid_"

Series = dict[str, dict[int, float]]


def write_curve(log: Path, path: Path) -> None:
    """Write a PNG with the loss and the in-batch recall over updates, from a log in fairseq's JSON format.

    To get such a log, train with `common.log_format=json common.log_file=...`.
    """
    # Imported here because only this function needs matplotlib. A bare Figure needs no display and no global state.
    from matplotlib.figure import Figure

    series = read_log(log)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, points in sorted(series.items()):
        updates, values = zip(*sorted(points.items()), strict=True)
        axis = axes[0] if name.endswith("loss") else axes[1]
        axis.plot(updates, values, label=name, marker="." if len(points) < 50 else "")
    for axis, title in zip(axes, ("contrastive loss", "in-batch recall@1"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("update")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[1].set_ylim(bottom=0)
    atomic_write(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def draw_curves(runs: Sequence[Series], colours: Sequence[str]) -> bytes:
    """A PNG with a panel for each metric and a color for each run: solid lines for training, dashed for validation.

    It contains no text but the metrics' names: matplotlib would read a run's name with a $ as a formula.
    """
    from matplotlib.figure import Figure

    metrics = [metric for metric in METRICS if any(name.endswith(f" {metric}") for run in runs for name in run)]
    figure = Figure(figsize=(4.6 * len(metrics), 3.6), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for run, colour in zip(runs, colours, strict=True):
            for split, style in (("train", "-"), ("valid", "--")):
                points = sorted(run.get(f"{split} {metric}", {}).items())
                marker = "." if len(points) < 50 else ""
                axis.plot([x for x, _ in points], [y for _, y in points], style, color=colour, marker=marker)
        axis.set_title(metric)
        axis.set_xlabel("update")
        axis.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    return picture.getvalue()


def read_log(log: Path) -> Series:
    """`train loss`, `valid loss`, `train t2v_recall@1`, ... -> update -> value.

    For a run shorter than its log interval, the averages of epochs are used. If a resumed run repeats updates, the
    later values are used.
    """
    found: dict[str, Series] = {prefix: defaultdict(dict) for prefix in (INTERVAL, EPOCH, VALIDATION)}
    for record in records(log):
        for prefix, series in found.items():
            if f"{prefix}num_updates" not in record:
                continue
            for metric in METRICS:
                if f"{prefix}{metric}" in record:
                    series[metric][int(record[f"{prefix}num_updates"])] = float(record[f"{prefix}{metric}"])
    train = found[INTERVAL] or found[EPOCH]
    if not train:
        raise ValueError(f"{log} has no training steps in fairseq's JSON format (common.log_format=json)")
    named = {"train": train, "valid": found[VALIDATION]}
    return {f"{split} {metric}": points for split, series in named.items() for metric, points in series.items()}


def records(log: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of a log, with or without a logger's prefix."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        start = line.find('{"')
        if start < 0:
            continue
        try:
            yield json.loads(line[start:])
        except json.JSONDecodeError:
            continue  # other text, or the last line of a killed run
