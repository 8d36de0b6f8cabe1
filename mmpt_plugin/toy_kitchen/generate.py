"""Write the toy kitchen: videos, captions, annotations of the held-out part, and a tokenizer."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from mmpt_plugin.files import atomic_write, read_json, write_failures, writing
from mmpt_plugin.shards.captions import Caption
from mmpt_plugin.signals import WorkerContext
from mmpt_plugin.toy_kitchen.drawing import FPS, frames
from mmpt_plugin.toy_kitchen.narration import describe_step, narrate, vocabulary
from mmpt_plugin.toy_kitchen.recipes import Recipe, invent

VERSION = 2


def generate(
    out: Path, *, num_train: int = 640, num_test: int = 80, seed: int = 0, num_workers: int | None = None
) -> None:
    """Write a folder of narrated videos, deterministic for given settings.

    A complete folder is not changed, and an interrupted one is completed. Video i depends only on the seed and i, and
    the first `num_test` are held out, so all numbers of training videos have the same held-out videos. Training videos
    have only captions; every step of a held-out video has a line in test_clips.jsonl, with its meaning.
    """
    if num_train < 1 or num_test < 1:
        raise ValueError(f"num_train and num_test must be at least 1, got {num_train} and {num_test}")
    about = {"version": VERSION, "num_train": num_train, "num_test": num_test, "seed": seed}
    settings = out / "about.json"
    if settings.is_file():
        found = read_json(settings)
        found = found if isinstance(found, dict) else {}
        complete = found.pop("complete", False)
        if found != about:
            changed = "; ".join(
                f"{key} {found.get(key)}, not {about[key]}" for key in about if found.get(key) != about[key]
            )
            raise ValueError(f"{out} holds another toy kitchen ({changed}): choose another folder or remove it")
        if complete:
            with suppress(OSError, ValueError), writing(out):  # removes what killed runs left, if it may
                pass
            return
    with writing(out):
        write_text(settings, json.dumps(about | {"complete": False}))
        write_parts(
            out, num_train=num_train, num_test=num_test, seed=seed, num_workers=num_workers or os.cpu_count() or 1
        )
        write_text(settings, json.dumps(about | {"complete": True}))


def write_parts(out: Path, *, num_train: int, num_test: int, seed: int, num_workers: int) -> None:
    """Write all but about.json."""
    for folder in ("videos", "captions", "tokenizer"):
        with write_failures(out / folder):
            (out / folder).mkdir(exist_ok=True)
    write_tokenizer(out / "tokenizer")
    names = [video_name(i) for i in range(num_test + num_train)]
    with ProcessPoolExecutor(num_workers, WorkerContext()) as pool:
        jobs = pool.map(partial(write_narrated_video, out, seed), range(len(names)), chunksize=4)
        try:
            annotations = list(track(jobs, "drawing videos", total=len(names)))
        except BrokenProcessPool as error:
            raise ValueError(f"one of {num_workers} processes died: run again to continue") from error
    write_text(out / "train.txt", "".join(f"{name}\n" for name in names[num_test:]))
    write_text(out / "test.txt", "".join(f"{name}\n" for name in names[:num_test]))
    write_text(out / "test_clips.jsonl", "".join(line for lines in annotations[:num_test] for line in lines))


def video_name(i: int) -> str:
    """The video id, which does not depend on the number of videos."""
    return f"toy_{i:04d}"


def write_narrated_video(out: Path, seed: int, i: int) -> list[str]:
    """Write a video and its captions; return its annotations, one line of JSON per step."""
    rng = np.random.default_rng([seed, i])
    recipe = invent(rng)
    captions = narrate(recipe, rng)
    lines = annotate(video_name(i), recipe, rng)
    write_text(out / "captions" / f"{video_name(i)}.vtt", webvtt(captions))
    video = out / "videos" / f"{video_name(i)}.mp4"
    if not video.is_file():
        from mmpt_plugin.video.write import write_video  # PyAV is an extra

        write_video(video, frames(recipe, rng), fps=FPS)
    return lines


def annotate(video_id: str, recipe: Recipe, rng: np.random.Generator) -> list[str]:
    """One line of JSON per step: its times, a description, and its meaning."""
    annotations = [
        {
            "video_id": video_id,
            "start": step.start,
            "end": step.end,
            "caption": describe_step(step, rng),
            "meaning": {"action": step.action, "ingredient": step.ingredient},
        }
        for step in recipe.steps
    ]
    return [json.dumps(annotation) + "\n" for annotation in annotations]


def webvtt(captions: list[Caption]) -> str:
    """The captions as the content of a WebVTT file."""
    cues = [f"{clock(c.start)} --> {clock(c.end)}\n{c.text}\n" for c in captions]
    return "\n".join(["WEBVTT\n", *cues])


def clock(seconds: float) -> str:
    """A time as WebVTT's MM:SS.mmm."""
    thousandths = round(seconds * 1000)
    return f"{thousandths // 60000:02d}:{thousandths // 1000 % 60:02d}.{thousandths % 1000:03d}"


def write_tokenizer(folder: Path, more: Iterable[str] = ()) -> None:
    """Files for `BertTokenizer.from_pretrained`, with the words of the templates and of `more`."""
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in vocabulary(more)))
    write_text(
        folder / "tokenizer_config.json",
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
    )


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, in UTF-8."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
