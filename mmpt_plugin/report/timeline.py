"""A self-contained HTML page of long videos as timelines, predicted segments above true ones."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmpt_plugin.files import replace_text
from mmpt_plugin.report.page import STYLE, table
from mmpt_plugin.report.table import title_of
from mmpt_plugin.video.clock import clock

WIDTH, LEFT, BAND, AXIS = 900, 80, 26, 22
GOLDEN_ANGLE = 137.508  # degrees between the hues of successive labels, so that labels of one video differ clearly
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between two marks of the time axis
MOST_TICKS = 12

TIMELINE_STYLE = """
svg { width: 100%; height: auto; display: block; margin: .2rem 0 .6rem; }
svg line { stroke: currentColor; stroke-opacity: .25; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.none { fill: #8883; }
.legend span { display: inline-block; margin-right: .9rem; font-size: .85rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; border-radius: 2px; }
"""


def has_timelines(result: Mapping[str, Any]) -> bool:
    """Whether the result has examples with segments."""
    return any("segments" in example for example in result.get("examples", ()))


def write_timelines(path: Path, result: Mapping[str, Any]) -> None:
    """Write the metrics of a segmentation or localization result, and its examples as timelines."""
    if not has_timelines(result):
        raise ValueError(f"the result of '{result['task']}' has no segments to show")
    title = f"{title_of(result).replace('_', ' ')}: predicted and true segments"
    labels = dict.fromkeys(
        label for example in result["examples"] for part in example["segments"].values() for _, _, label in part
    )
    colours = {label: colour(number) for number, label in enumerate(labels)}
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}{TIMELINE_STYLE}</style>
<h1>{escape(title)}</h1>{table(result)}<p>A step has the same color in all videos.</p>
{"".join(section(example, colours) for example in result["examples"])}</html>
"""
    replace_text(path, page)


def colour(number: int) -> str:
    """The color of a label by its number, in CSS."""
    return f"hsl({number * GOLDEN_ANGLE % 360:.0f} 60% {(50, 38, 62)[number % 3]}%)"


def section(example: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """One video as HTML: a band for each kind of segments, a time axis, and a legend."""
    segments = example["segments"]
    labels = list(dict.fromkeys(label for part in segments.values() for _, _, label in part))
    height = len(segments) * (BAND + 4)
    bands = "".join(
        band(name, part, example["seconds"], colours, top=number * (BAND + 4))
        for number, (name, part) in enumerate(segments.items())
    )
    legend = "".join(f'<span><i style="background:{colours[label]}"></i>{escape(label)}</span>' for label in labels)
    return (
        f"<section><h2>{escape(example['video_id'])}, {clock(float(example['seconds']))}</h2>"
        f'<svg viewBox="0 0 {WIDTH} {height + AXIS}" role="img">{bands}{axis(example["seconds"], top=height)}</svg>'
        f'<p class="legend">{legend}</p></section>'
    )


def axis(seconds: int, *, top: int) -> str:
    """The times below the bands."""
    step = next((step for step in TICKS if seconds / step <= MOST_TICKS), TICKS[-1])
    scale = (WIDTH - LEFT) / seconds
    return "".join(
        f'<line x1="{LEFT + second * scale:.1f}" x2="{LEFT + second * scale:.1f}" y1="0" y2="{top}"/>'
        f'<text x="{LEFT + second * scale:.1f}" y="{top + 14}">{clock(float(second))}</text>'
        for second in range(0, seconds, step)
    )


def band(
    name: str,
    segments: Sequence[Sequence[Any]],
    seconds: int,
    colours: Mapping[str, str],
    *,
    top: int,
) -> str:
    """One row of the timeline: a name on the left, and segments whose label and times are shown on hover."""
    scale = (WIDTH - LEFT) / seconds
    boxes = "".join(
        f'<rect x="{LEFT + start * scale:.1f}" y="{top}" width="{max((end - start) * scale, 2):.1f}" height="{BAND}" '
        f'fill="{colours[label]}"><title>{escape(label)}, {start:g} to {end:g} s</title></rect>'
        for start, end, label in segments
    )
    return (
        f'<rect class="none" x="{LEFT}" y="{top}" width="{WIDTH - LEFT}" height="{BAND}"/>{boxes}'
        f'<text x="0" y="{top + BAND * 0.65:.0f}">{escape(name)}</text>'
    )
