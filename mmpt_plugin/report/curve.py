"""The training curve of a fairseq run, as a picture."""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from mmpt_plugin.checkpoint import write_whole

Series = dict[str, list[tuple[float, float]]]


def write_curve(log: Path, path: Path) -> None:
    """A PNG with the loss and the in-batch recall over updates, from a log in fairseq's JSON format.

    (`common.log_format=json common.log_file=...` writes one.)
    """
    series = read_log(log)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, points in sorted(series.items()):
        axis = axes[0] if name.endswith("loss") else axes[1]
        axis.plot(*zip(*points, strict=True), label=name.replace("_", " "))
    for axis, title in zip(axes, ("contrastive loss (nats, both directions)", "in-batch recall@1"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("update")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1].set_ylim(bottom=0)
    write_whole(path, lambda beside: figure.savefig(beside, dpi=110, format="png"))
    pyplot.close(figure)


def read_log(log: Path) -> Series:
    """Metric -> (update, value) of every logged interval, and of every validation under `valid ...`."""
    series: Series = defaultdict(list)
    for line in log.read_text(encoding="utf-8").splitlines():
        start = line.find('{"epoch"')
        if start < 0:
            continue
        record = json.loads(line[start:])
        prefix = "valid_" if "valid_num_updates" in record else ""
        if f"{prefix}num_updates" not in record:
            continue
        update = float(record[f"{prefix}num_updates"])
        for name in ("loss", "t2v_recall@1", "v2t_recall@1"):
            if f"{prefix}{name}" in record:
                series[prefix + name].append((update, float(record[f"{prefix}{name}"])))
    if not series:
        raise ValueError(f"{log} has no training steps in fairseq's JSON format (common.log_format=json)")
    return series
