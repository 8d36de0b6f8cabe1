"""One self-contained HTML page: queries, and the frames of what was found for them."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmpt_plugin.checkpoint import write_whole
from mmpt_plugin.features.video import SUFFIXES, read_frames
from mmpt_plugin.report.table import CONTROLS, rows

FRAMES_SHOWN, FRAME_HEIGHT = 4, 96

STYLE = """
:root { color-scheme: light dark; --line: #8884; --right: #1a8a4a; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .5rem; }
h2 { font-size: 1.15rem; margin: .3rem 0; }
.clip { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: center; margin: .4rem 0;
        padding: .3rem .5rem; border-left: .3rem solid var(--line); }
.clip.right { border-color: var(--right); }
.clip p { margin: 0; font-size: .85rem; min-width: 14rem; flex: 1; }
.frames { display: flex; gap: 2px; } .frames img { height: 72px; max-width: 24vw; border-radius: 3px; }
.mark { color: var(--right); font-weight: 600; }
"""


def write_page(path: Path, *, title: str, result: Mapping[str, Any], videos: Path) -> None:
    """The examples of a retrieval result, with frames from `videos/{video_id}.mp4` (or another video suffix)."""
    strips = Strips(videos)
    sections = "".join(query(example, strips) for example in result["examples"])
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1>
<p>{result["num_queries"]} sentences, each looking for its own clip among the {result["num_queries"]} clips of videos
that were never trained on. Recall@k is the share whose clip is among the first k found; ties count as misses.</p>
{table(result)}{sections}</html>
"""
    write_whole(path, lambda beside: beside.write_text(page, encoding="utf-8"))


def table(result: Mapping[str, Any]) -> str:
    heads = ["metric", "this model", *(control for control in CONTROLS if control in result)]
    lines = ["".join(f"<th>{escape(head)}</th>" for head in heads)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows(result)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def query(example: Mapping[str, Any], strips: "Strips") -> str:
    right = example["right"]
    clips = [clip(found, f"{place}.", found == right, strips) for place, found in enumerate(example["found"], 1)]
    if right not in example["found"]:
        clips.append(clip(right, f"{example['rank']}.", True, strips))
    return f"<section><h2>“{escape(example['text'])}”</h2>{''.join(clips)}</section>"


def clip(found: Mapping[str, Any], place: str, is_right: bool, strips: "Strips") -> str:
    mark = '<span class="mark">✓ the clip looked for</span><br>' if is_right else ""
    when = f"{found['start']:.0f}–{found['end']:.0f} s"
    return (
        f'<div class="clip{" right" if is_right else ""}"><strong>{place}</strong>'
        f'<div class="frames">{strips.html(found)}</div>'
        f"<p>{mark}{escape(found['caption'])}<br>{escape(found['video_id'])}, {when}, score {found['score']:.2f}</p></div>"
    )


class Strips:
    """Frames spread over clips, each clip decoded once."""

    def __init__(self, videos: Path) -> None:
        self.videos = videos
        self.made: dict[tuple[str, float, float], str] = {}

    def html(self, found: Mapping[str, Any]) -> str:
        key = (found["video_id"], found["start"], found["end"])
        if key not in self.made:
            self.made[key] = self._decode(*key)
        return self.made[key]

    def _decode(self, video_id: str, start: float, end: float) -> str:
        path = next((p for suffix in SUFFIXES if (p := self.videos / f"{video_id}{suffix}").is_file()), None)
        if path is None:
            raise ValueError(f"no video '{video_id}' with {' or '.join(SUFFIXES)} in {self.videos}")
        times = [start + (end - start) * (i + 0.5) / FRAMES_SHOWN for i in range(FRAMES_SHOWN)]
        pictures = [jpeg(Image.fromarray(frame)) for frame in read_frames(path, times, height=FRAME_HEIGHT)]
        return "".join(f'<img alt="" src="data:image/jpeg;base64,{picture}">' for picture in pictures)


def jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
