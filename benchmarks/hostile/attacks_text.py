"""Attacks by text that a terminal, a page or a shell would obey."""

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import yaml

from benchmarks.hostile import sandbox
from benchmarks.hostile.attacks import ESCAPE, IMAGE, SCRIPT, SHELL, Attack, attack, copied, in_yaml
from benchmarks.hostile.cases import faults_of
from benchmarks.hostile.formats import FORMATS, Words, shard_captions

# What terminals obey.


@attack
def terminal_codes_in_a_file_name(seeds: Path, folder: Path) -> Attack:
    (folder / "videos").mkdir()
    for name in (ESCAPE, "[red]x[/red]", "[/]", ":smile:", "a\nmmpt extract: all is well", "\udcff", "\u202egpj"):
        name = name.replace("/", "\u2215")
        (folder / "videos" / f"{name}.mp4").write_text("no video")
    return Attack(["cache-frames", folder / "videos", "--out", folder / "out", "--size", 32], r"\[red\]x\[.red\]")


@attack
def terminal_codes_in_an_annotation(seeds: Path, folder: Path) -> Attack:
    path = copied("corpus_jsonl", seeds, folder)
    line = {"video_id": f"{ESCAPE}[/]\n", "start": 0, "end": 4, "caption": "chop"}
    (path / "a.jsonl").write_text(json.dumps(line))
    return Attack(FORMATS["corpus_jsonl"].words(seeds, path), r"a.jsonl: 1 videos have no features.*\\x1b")


@attack
def terminal_codes_in_a_task(seeds: Path, folder: Path) -> Attack:
    return in_yaml(seeds, folder, "task", f"\ntest_set: {json.dumps(f'[/] [red]{ESCAPE}')}\n")


@attack
def terminal_codes_in_a_job(seeds: Path, folder: Path) -> Attack:
    run = folder / "runs" / "r"
    run.mkdir(parents=True)
    about = {"folder": f"[/]{ESCAPE}", "job_id": "1", "executor": "local", "tasks": 1, "logs": str(run), "words": []}
    (run / "job.json").write_text(json.dumps(about))
    return Attack(["jobs", folder / "runs"])


@attack
def terminal_codes_in_a_pickle(seeds: Path, folder: Path) -> Attack:
    (folder / "raw.pickle").write_bytes(b"c\x1b[31mos\nsystem\n.")
    return Attack(shard_captions(seeds, folder / "raw.pickle"), "raw.pickle")


# What pages obey.


class Tags(HTMLParser):
    """The tags of a page, and the attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag in ("script", "iframe", "object", "embed", "base")
        self.handlers += [name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]


def hostile_run(seeds: Path, folder: Path) -> Path:
    """A run whose name, settings, metrics and examples have HTML in them, and videos with such a name."""
    run = folder / f"run{IMAGE.replace('/', '')}"
    shutil.copytree(seeds / "run", run)
    name = f"v{IMAGE.replace('/', '')}"
    (folder / "videos").mkdir()
    shutil.copy(seeds / "videos" / "v.mp4", folder / "videos" / f"{name}.mp4")
    result = json.loads((run / "metrics.json").read_text())
    found = {"video_id": name, "start": 0.0, "end": 4.0, "caption": SCRIPT + IMAGE, "score": 0.5}
    found["meaning"] = {IMAGE: SCRIPT}
    example = {"text": SCRIPT + IMAGE, "rank": 1, "right": found, "found": [found], "half": "better", "meaning_rank": 1}
    result |= {"task": SCRIPT, "test_set": IMAGE, "examples": [example], "benchmark": SCRIPT}
    result["metrics"] |= {SCRIPT: 0.5}
    (run / "metrics.json").write_text(json.dumps(result))
    project = yaml.safe_load((run / "project.yaml").read_text()) | {SCRIPT: {IMAGE: SCRIPT + IMAGE}}
    (run / "project.yaml").write_text(yaml.safe_dump(project))
    return run


def faults_of_page(page: Path, outcome: sandbox.Outcome, folder: Path, *, scripts: int) -> list[str]:
    """An own script more than `scripts`, or an attribute that runs code, counts as a canary."""
    faults = faults_of(outcome, folder)
    if outcome.status:
        return [*faults, "unclear"]
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return faults + (["canaries"] if tags.scripts > scripts or tags.handlers else [])


@attack
def html_on_the_page_of_a_run(seeds: Path, folder: Path) -> list[str]:
    run = hostile_run(seeds, folder)
    outcome = sandbox.command(["report", run, "--videos", folder / "videos"], folder)
    return faults_of_page(run / "index.html", outcome, folder, scripts=1)


@attack
def html_on_the_page_of_several_runs(seeds: Path, folder: Path) -> list[str]:
    run, page = hostile_run(seeds, folder), folder / "runs.html"
    outcome = sandbox.command(["report", run, seeds / "run", "--out", page], folder)
    return faults_of_page(page, outcome, folder, scripts=1)


# What shells obey.


def executed(outcome: sandbox.Outcome, folder: Path) -> list[str]:
    """Run the batch file that a dry run prints, with an srun that does nothing."""
    script = outcome.stdout[outcome.stdout.index("#!/bin/bash") :] if "#!/bin/bash" in outcome.stdout else ""
    (folder / "bin").mkdir()
    for name in ("srun", "scontrol", "module"):
        (folder / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    end = script.find("\n# ") if "\n# " in script else len(script)
    subprocess.run(["bash"], input=script, cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=30)
    return faults_of(outcome, folder) + ([] if script or outcome.status == 2 else ["unclear"]) if end else []


@attack
def shell_characters_in_overrides(seeds: Path, folder: Path) -> list[str]:
    given = [f"checkpoint.save_dir={folder}/run {SHELL.replace('/', '')}", f"dataset.train_subset=train {SHELL}"]
    words: Words = ["launch", seeds / "yaml" / "training.yaml", *given, "--profile", "cpu", "--dry-run", "--no-check"]
    return executed(sandbox.command(words, folder), folder)


@attack
def shell_characters_in_file_names(seeds: Path, folder: Path) -> list[str]:
    videos = folder / f"v {SHELL.replace('canary', 'c4nary').replace('/', '')}"
    shutil.copytree(seeds / "videos", videos)
    words: Words = ["launch", "extract", videos, "--encoder", "s3d", "--out", f"{folder}/out {SHELL}"]
    return executed(sandbox.command([*words, "--profile", "cpu", "--dry-run"], folder), folder)


@attack
def shell_characters_in_a_profile(seeds: Path, folder: Path) -> list[str]:
    path = copied("profile", seeds, folder)
    profile = yaml.safe_load(path.read_text())
    profile |= {"setup": [], "partition": f"x {SHELL}", "extra": {"comment": SHELL}, "extra_srun": {"comment": SHELL}}
    path.write_text(yaml.safe_dump(profile))
    return executed(sandbox.command(FORMATS["profile"].words(seeds, path), folder), folder)
