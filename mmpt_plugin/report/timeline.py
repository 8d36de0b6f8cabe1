"""A self-contained HTML page of long videos as timelines, predicted segments above true ones."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmpt_plugin.files import atomic_write
from mmpt_plugin.report.page import STYLE, table

WIDTH, BAND = 900, 26

TIMELINE_STYLE = """
svg { width: 100%; height: auto; display: block; margin: .2rem 0 .6rem; }
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
    title = f"{result.get('benchmark', result['task'])}: predicted and true"
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}{TIMELINE_STYLE}</style>
<h1>{escape(title)}</h1>{table(result)}{"".join(section(example) for example in result["examples"])}</html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def section(example: Mapping[str, Any]) -> str:
    """One video as HTML: a band for each kind of segments, with one color per label, and a legend."""
    segments = example["segments"]
    labels = list(dict.fromkeys(label for part in segments.values() for _, _, label in part))
    colours = {label: f"hsl({360 * number / len(labels):.0f} 60% 50%)" for number, label in enumerate(labels)}
    height = len(segments) * (BAND + 4)
    bands = "".join(
        band(name, part, example["seconds"], colours, top=number * (BAND + 4))
        for number, (name, part) in enumerate(segments.items())
    )
    legend = "".join(f'<span><i style="background:{colours[label]}"></i>{escape(label)}</span>' for label in labels)
    return (
        f"<section><h2>{escape(example['video_id'])}, {example['seconds']} s</h2>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{bands}</svg><p class="legend">{legend}</p></section>'
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
    left, scale = 80, (WIDTH - 80) / seconds
    boxes = "".join(
        f'<rect x="{left + start * scale:.1f}" y="{top}" width="{max((end - start) * scale, 2):.1f}" height="{BAND}" '
        f'fill="{colours[label]}"><title>{escape(label)}, {start:g} to {end:g} s</title></rect>'
        for start, end, label in segments
    )
    return (
        f'<rect class="none" x="{left}" y="{top}" width="{WIDTH - left}" height="{BAND}"/>{boxes}'
        f'<text x="0" y="{top + BAND * 0.65:.0f}">{escape(name)}</text>'
    )
