"""An HTML page of one run: its curve and settings, and queries with the retrieved clips.

Pictures are part of the file. A click on a clip plays its video, which the page finds by a relative path.
"""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mmpt_plugin.files import replace_text
from mmpt_plugin.report.runs import PROJECT, find_log, read_settings, time_of_end
from mmpt_plugin.report.table import heads, rows

if TYPE_CHECKING:
    from PIL import Image

FRAMES_SHOWN, FRAME_HEIGHT = 4, 96

# The sections of the page by the examples' `half`; version 0.1 has chosen examples without regard to their rank.
HALVES = {"better": "Found well: the better half", "worse": "Found badly: the worse half", None: "Examples"}

STYLE = """
:root { color-scheme: light dark; --line: #8884; --right: light-dark(#14753d, #4fcb84); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem 0 .15rem 1rem; text-align: right; }
td { white-space: nowrap; }
td:first-child, th:first-child { padding-left: 0; text-align: left; }
tr + tr { border-top: 1px solid var(--line); }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .5rem; }
h2 { margin: 2rem 0 0; }
h3 { font-size: 1.15rem; margin: .3rem 0 0; }
section > p { margin: 0 0 .4rem; }
.clip { display: grid; grid-template-columns: 2.6rem auto 1fr; gap: .2rem .8rem; align-items: center;
        margin: .4rem 0; padding: .3rem .5rem; border-left: .3rem solid var(--line); }
.clip.right { border-color: var(--right); outline: 1px solid var(--right); }
.clip.same { border-color: var(--right); }
.clip.apart { margin-top: 1.2rem; }
.clip p { margin: 0; font-size: .85rem; overflow-wrap: anywhere; }
.frames { display: flex; gap: 2px; }
.frames { padding: 0; border: 0; background: none; cursor: pointer; }
.frames img { height: 72px; min-width: 0; border-radius: 3px; object-fit: cover; }
.clip video { height: 216px; max-width: 100%; }
.curve { width: 100%; }
.mark { color: var(--right); font-weight: 600; }
@media (max-width: 44rem) {
  td, th { padding-left: .6rem; font-size: .75rem; }
  .clip { grid-template-columns: 2.4rem 1fr; gap: .2rem .3rem; }
  .clip p { grid-column: 2; }
  .frames img { height: auto; width: calc(25% - 2px); }
}
"""


PLAY = """
addEventListener("click", (event) => {
  const button = event.target.closest("button[data-video]");
  if (!button) return;
  const video = document.createElement("video");
  Object.assign(video, { src: button.dataset.video, controls: true, autoplay: true });
  video.onerror = () => video.replaceWith(`This browser can't play ${decodeURI(button.dataset.video.split("#")[0])}`);
  button.replaceWith(video);
});
"""


def write_page(path: Path, *, title: str, result: Mapping[str, Any], videos: Path, about: str = "") -> None:
    """Write the metrics and examples of a retrieval result, with frames from a folder of videos (`find_videos`).

    `about` is HTML that follows the title; see `about_run`. A missing video is a ValueError.
    """
    if not any("found" in example for example in result.get("examples", ())):
        raise ValueError(
            f"the result of '{result.get('task')}' has no examples to show: only retrieval tasks have them"
        )
    strips = Strips(videos, path.parent)
    sections = "".join(half(name, result, strips) for name in HALVES)
    missing = result.get("missing_videos", 0)
    left_out = f" {missing:d} videos are missing and were skipped." if missing else ""
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1>
{about}
<p>{result["num_queries"]:d} sentences retrieve their own clip among {result["num_clips"]:d} clips of held-out videos
(t2v), and each clip retrieves its sentence (v2t). Recall@k is the share of queries whose own item is among the first k;
higher is better. Ranks count from 1; lower is better. Ties count against the model.{left_out}</p>
{about_meaning(result)}{table(result)}{sections}<script>{PLAY}</script></html>
"""
    replace_text(path, page)


def about_run(folder: Path) -> str:
    """The name and date of a run, its curve.png, and its settings if it has a project.yaml, as HTML."""
    end = time_of_end(find_log(folder))
    made = f"<p>Run <strong>{escape(folder.resolve().name)}</strong>{f', trained until {end}' if end else ''}.</p>"
    picture = base64.b64encode((folder / "curve.png").read_bytes()).decode()
    made += f'<img class="curve" alt="training curves" src="data:image/png;base64,{picture}">'
    if (folder / PROJECT).is_file():
        settings = {key: value for key, value in read_settings(folder / PROJECT).items() if value is not None}
        lines = [[escape(key), escape(str(value))] for key, value in settings.items()]
        made += f"<details><summary>Settings</summary>{html_table([['key', 'value'], *lines])}</details>"
    return made


def table(result: Mapping[str, Any]) -> str:
    """The metrics and their controls as an HTML table."""
    return html_table([[escape(cell) for cell in line] for line in (heads(result), *rows(result))])


def html_table(lines: Iterable[Sequence[str]]) -> str:
    """An HTML table of cells that are HTML already; the first line has the titles of the columns."""
    first, *others = lines
    rows = ["".join(f"<th>{cell}</th>" for cell in first)]
    rows += ["".join(f"<td>{cell}</td>" for cell in line) for line in others]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def about_meaning(result: Mapping[str, Any]) -> str:
    """What the metrics by meaning and the oracles are, as HTML, if the result has them."""
    if "oracles" not in result:
        return ""
    return (
        "<p>Several clips mean the same. The metrics with <em>meaning</em> in their name count the rank of the first "
        "clip (t2v) or sentence (v2t) with the right meaning; the others that of the very clip or sentence. A searcher "
        "who <em>knows</em> the meaning of every clip or a part of it, and nothing else, chooses at random among the "
        "clips that share this with the query; the table shows its expected values.</p>"
    )


def half(name: str | None, result: Mapping[str, Any], strips: "Strips") -> str:
    """The section of one half of the queries as HTML, with the rule by which its examples were chosen."""
    examples = [example for example in result["examples"] if example.get("half") == name]
    if not examples:
        return ""
    by_meaning = "the first clip that means the same, then of " if "meaning_rank" in examples[0] else ""
    rule = (
        f"All {result['num_queries']:d} sentences are sorted by the rank of {by_meaning}their own clip. The {name} "
        f"half of them is cut into {len(examples)} equal parts, and the middle sentence of each part is shown."
        if name
        else f"{len(examples)} of {result['num_queries']:d} sentences."
    )
    return f"<h2>{HALVES[name]}</h2><p>{rule}</p>" + "".join(query(example, strips) for example in examples)


def query(example: Mapping[str, Any], strips: "Strips") -> str:
    """A sentence and its retrieved clips in order, followed by its own clip if that is not among them."""
    right, first = example["right"], example["found"]
    clips = [clip(found, place, strips, kind=kind_of(found, right)) for place, found in enumerate(first, 1)]
    if right not in first:
        clips.append(clip(right, example["rank"], strips, kind="right apart"))
    ranks = f"Its own clip has rank {example['rank']:d}."
    if "meaning_rank" in example:
        meaning = escape(", ".join(right["meaning"].values()))
        ranks += f" The first clip that means the same ({meaning}) has rank {example['meaning_rank']:d}."
    return f"<section><h3>“{escape(example['text'])}”</h3><p>{ranks}</p>{''.join(clips)}</section>"


def kind_of(found: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """`right` for the query's own clip, `same` for another clip that means the same, otherwise empty."""
    if found == right:
        return "right"
    return "same" if found.get("meaning") and found["meaning"] == right.get("meaning") else ""


def clip(found: Mapping[str, Any], place: int, strips: "Strips", *, kind: str) -> str:
    """One retrieved clip as HTML, with its rank `place` and its CSS class `kind`; see `kind_of`."""
    words = "the right clip" if "right" in kind else "means the same" if kind else ""
    mark = f'<span class="mark">✓ {words}</span><br>' if words else ""
    where = f"{escape(found['video_id'])}, {found['start']:.0f}–{found['end']:.0f} s, score {found['score']:.2f}"
    return (
        f'<div class="clip {kind}"><strong>{place}.</strong>{strips.html(found)}'
        f"<p>{mark}{escape(found['caption'])}<br>{where}</p></div>"
    )


class Strips:
    """Buttons that show frames spread evenly over a clip and play it; each clip is decoded once.

    `folder` is that of the page, from which the videos' paths are relative.
    """

    def __init__(self, videos: Path, folder: Path) -> None:
        from mmpt_plugin.video.store import VideoFolder  # PyAV and Pillow are extras, which tables do without

        self.videos = VideoFolder(videos)
        self.folder = folder
        self.made: dict[tuple[str, float, float], str] = {}

    def html(self, found: Mapping[str, Any]) -> str:
        """The button of a clip, with frames as embedded images."""
        key = (found["video_id"], found["start"], found["end"])
        if key not in self.made:
            self.made[key] = self._decode(*key)
        return self.made[key]

    def _decode(self, video_id: str, start: float, end: float) -> str:
        from PIL import Image

        from mmpt_plugin.video.decode import read_frames

        path = self.videos.file(video_id)
        times = [start + (end - start) * (i + 0.5) / FRAMES_SHOWN for i in range(FRAMES_SHOWN)]
        pictures = [jpeg(Image.fromarray(frame)) for frame in read_frames(path, times, height=FRAME_HEIGHT)]
        images = "".join(f'<img alt="" src="data:image/jpeg;base64,{picture}">' for picture in pictures)
        address = f"{quote(os.path.relpath(path, self.folder))}#t={start},{end}"
        return f'<button class="frames" data-video="{escape(address)}" title="play">{images}</button>'


def jpeg(picture: "Image.Image") -> str:
    """The picture as a base64-encoded JPEG, for a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
