"""The `mmpt` command."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mmpt_plugin.checkpoint import write_whole

EPILOG = """\
a first run, on the embedded data set:
  mmpt generate toy_kitchen --out data/toy_kitchen
  mmpt extract data/toy_kitchen/videos --encoder efficientnet_lite0 --out data/toy_kitchen/features
  mmpt shard --videos data/toy_kitchen/train.txt --features data/toy_kitchen/features \\
      --captions data/toy_kitchen/captions --tokenizer data/toy_kitchen/tokenizer --out data/toy_kitchen/shards/train
  mmpt train videoclip/toy_kitchen
  mmpt evaluate videoclip/zeroshot task=toy_kitchen_clips checkpoint=runs/demo/checkpoint_last.pt

with the released weights, on videos of your own:
  mmpt convert checkpoint_best.pt --out videoclip --tokenizer bert-base-uncased \\
      --encoder '{_name: s3d, weights: s3d_howto100m.pth}'
  mmpt embed videoclip my_videos/ --out videos.safetensors
"""


RUNS = Path("runs")
INTERRUPTED = 130  # exit status of a training that a signal stopped, as shells have it for Ctrl-C
COMMANDS_AS_JOBS = ("train", "extract", "cache-frames", "embed", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 2 with one line on stderr where the user's input is wrong."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int | None = arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"mmpt {arguments.command}: {error}", file=sys.stderr)
        return 2
    return status or 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides, and videos, may be on either side of the options, which argparse alone does not allow."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if arguments.command == "launch":
        arguments.for_profile = [word for word in rest if word.startswith("slurm.")]
        arguments.words = as_command([word for word in rest if word not in arguments.for_profile])
        arguments.launched = parse(arguments.words)
        return arguments
    listed = next((key for key in ("overrides", "videos") if isinstance(getattr(arguments, key, None), list)), "")
    if rest and (not listed or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        vars(arguments)[listed] += map(Path, rest) if listed == "videos" else rest
    return arguments


def as_command(words: list[str]) -> list[str]:
    """What is launched: a command of COMMANDS_AS_JOBS, or a project, which is to be trained."""
    return words if words[:1] and words[0] in COMMANDS_AS_JOBS else ["train", *words]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mmpt",
        description="Pre-train VideoCLIP and its family on narrated video, fine-tune, evaluate, embed videos and text.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="what is registered, by kind, and the YAML there is")
    command.set_defaults(run=run_list)

    command = commands.add_parser("generate", help="write the embedded data set: videos, captions, annotations")
    command.add_argument("name", choices=["toy_kitchen"])
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--train", type=int, default=240, metavar="N", help="training videos (default 240)")
    command.add_argument("--test", type=int, default=80, metavar="N", help="held-out videos (default 80)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, help="processes (default: all cores)")
    command.set_defaults(run=run_generate)

    command = commands.add_parser("extract", help="videos -> one feature row a second, an .npy file a video")
    add_videos(command)
    command.add_argument(
        "--encoder", required=True, help="a registered encoder, or YAML with its settings: '{_name: s3d, size: 64}'"
    )
    command.set_defaults(run=run_extract)

    command = commands.add_parser("cache-frames", help="videos -> JPEGs in shards, to train and evaluate on frames")
    add_videos(command)
    command.add_argument("--size", type=int, default=224, help="pixels of the square frames (default 224)")
    command.add_argument("--fps", type=int, default=1, help="frames a second (default 1)")
    command.add_argument("--quality", type=int, default=90, help="of the JPEGs, 1 to 95 (default 90)")
    command.set_defaults(run=run_cache_frames)

    command = commands.add_parser("shard", help="features and captions -> memory-mapped shards for training")
    command.add_argument("--videos", type=Path, help="a file of video ids, one a line (default: all with features)")
    command.add_argument(
        "--features",
        type=Path,
        required=True,
        help="a folder of {video_id}.npy, or of the original's shards; to train from frames, of videos or of frames",
    )
    command.add_argument(
        "--captions",
        type=Path,
        required=True,
        help="a folder of {video_id}.vtt, .srt or .jsonl, or of {video_id}.en.vtt if there is one language; "
        "HowTo100M's raw_caption.json or .pickle; one .jsonl of lines "
        "with a video_id; or a folder of the original's caption shards",
    )
    command.add_argument(
        "--tokenizer", required=True, help="a tokenizer of BERT, CLIP or SigLIP, by hub name or folder"
    )
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--split", default="train", help="which of the original's shards (default train)")
    command.add_argument("--max-tokens", type=int, default=32, help="word pieces kept of a caption (default 32)")
    command.add_argument(
        "--max-characters", type=int, help="characters kept of a caption; the released VideoCLIP saw 96 (default: all)"
    )
    command.add_argument(
        "--deduplicate",
        choices=["word", "character", "none"],
        default="word",
        help="how repetitions in HowTo100M's captions are found; the original's way is by character (default word); "
        "none also leaves rolling captions in other files as they are",
    )
    command.add_argument("--allow-missing", action="store_true", help="videos without features or captions are counted")
    command.set_defaults(run=run_shard)

    command = commands.add_parser("convert", help="a released or a fairseq checkpoint -> safetensors and config.json")
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--out", type=Path, required=True, help="a folder for VideoCLIP.from_pretrained")
    add_model_settings(command)
    command.set_defaults(run=run_convert)

    command = commands.add_parser("embed", help="videos or sentences -> vectors whose products are similarities")
    command.add_argument("checkpoint", type=Path)
    command.add_argument("videos", nargs="*", type=Path, help="video files, or one folder of them")
    command.add_argument("--text", type=Path, metavar="FILE", help="sentences, one a line, instead of videos")
    command.add_argument(
        "--out", type=Path, required=True, help="a .safetensors file; features go into a folder beside"
    )
    command.add_argument("--workers", type=int, default=1, help="processes that extract features (default 1)")
    command.add_argument("--truncate", action="store_true", help="read max_video_len seconds of each video only")
    command.add_argument("--allow-missing", action="store_true", help="videos that can't be decoded are no failure")
    add_model_settings(command)
    command.set_defaults(run=run_embed)

    command = commands.add_parser("train", help="run a project with fairseq's trainer")
    add_project(command)
    command.add_argument("--dry-run", action="store_true", help="print the fairseq-train command that does the same")
    command.add_argument("--resume", action="store_true", help="continue a run although settings have changed")
    command.set_defaults(run=run_train)

    command = commands.add_parser(
        "launch",
        help="run a project on SLURM",
        usage="mmpt launch [train] PROJECT --profile slurm/NAME [key=value ...] [--dry-run] [--wait]\n"
        "       mmpt launch extract|embed|evaluate ... --profile slurm/NAME [--parts N] [--dry-run] [--wait]",
        description="A project's training, or any of these commands, as a job that survives time limits, preemption "
        "and dead nodes (docs/slurm.md). key=a,b trains once for each value; slurm.KEY=VALUE changes the profile.",
    )
    command.add_argument("--profile", required=True, help="a YAML file, or a name such as v100x8 (see mmpt list)")
    command.add_argument("--parts", type=int, default=1, metavar="N", help="an array of N jobs that share the videos")
    command.add_argument("--dry-run", action="store_true", help="print the batch file and each rank's command")
    command.add_argument("--resume", action="store_true", help="continue a run although settings have changed")
    command.add_argument("--wait", action="store_true", help="until all jobs have ended; exit status 1 if one failed")
    command.set_defaults(run=run_launch)

    command = commands.add_parser("jobs", help="the launched jobs: state, epoch, loss, throughput, log")
    command.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where the runs are (default runs)")
    command.set_defaults(run=run_jobs)

    command = commands.add_parser("evaluate", help="measure a checkpoint, on one task or on all benchmarks there are")
    add_project(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    command.add_argument(
        "--html", type=Path, metavar="DIR", help="a page of timelines, predicted and true, for each segmented benchmark"
    )
    command.set_defaults(run=run_evaluate)

    command = commands.add_parser("report", help="a run's training curve, and a page of queries with what was found")
    command.add_argument("folder", type=Path, help="a run's folder, with metrics.json and train.log")
    command.add_argument("--videos", type=Path, required=True, help="the folder of video files")
    command.set_defaults(run=run_report)

    command = commands.add_parser("doctor", help="what this machine can run, and what to install for what it can't")
    command.set_defaults(run=run_doctor)
    return top


def add_videos(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "videos",
        nargs="+",
        type=Path,
        help="video files, folders of them (searched recursively), or one .txt file of paths, one a line",
    )
    command.add_argument("--part", metavar="I/N", help="every Nth video only, from the Ith on: 3/16")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    command.add_argument(
        "--allow-missing", action="store_true", help="exit with 0 although some videos can't be decoded"
    )


def add_project(command: argparse.ArgumentParser) -> None:
    command.add_argument("project", help="a YAML file, or a name such as videoclip/pretrain (see mmpt list)")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="optimization.lr=[1e-4], task=msrvtt, ...")


def add_model_settings(command: argparse.ArgumentParser) -> None:
    """What a checkpoint's tensors can't tell."""
    command.add_argument(
        "--tokenizer",
        help="a tokenizer of BERT, CLIP or SigLIP, by hub name or folder; the released one's: bert-base-uncased",
    )
    command.add_argument(
        "--encoder",
        help="what made the features it was trained on, as for mmpt extract; the released one's: "
        "'{_name: s3d, weights: s3d_howto100m.pth}' (default: as the folder says)",
    )
    command.add_argument("--num-attention-heads", type=int, help="default: as the file says, or 12")
    command.add_argument("--max-video-len", type=int, help="seconds; default: as the file says, or 32")


def load_model(arguments: argparse.Namespace) -> Any:
    from mmpt_plugin import models

    settings = {key: getattr(arguments, key) for key in ("num_attention_heads", "max_video_len")}
    given = {key: value for key, value in settings.items() if value is not None}
    encoder = component(arguments.encoder) if arguments.encoder else None
    return models.load_model(arguments.checkpoint, tokenizer=arguments.tokenizer, encoder=encoder, **given)


def run_list(arguments: argparse.Namespace) -> None:
    import mmpt_plugin
    from mmpt_plugin import config

    for kind in mmpt_plugin.registry.REGISTRIES:
        print(f"{kind.kind + 's':12} {', '.join(sorted(kind))}")
    for group in ("tasks", "projects", "slurm"):
        print(f"{group + '/':12} {', '.join(config.available(group))}")


def run_generate(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.datasets.toy_kitchen import generate

    generate(
        arguments.out,
        num_train=arguments.train,
        num_test=arguments.test,
        seed=arguments.seed,
        num_workers=arguments.workers,
    )


def run_extract(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.features.extract import extract

    encoder = component(arguments.encoder)
    if encoder.get("_name") == "frames":  # for one version
        from mmpt_plugin import registry
        from mmpt_plugin.features.frame_cache import FrameSettings

        logging.warning("--encoder frames is deprecated: use mmpt cache-frames VIDEOS --out DIR --size ... --fps ...")
        write_frames(arguments, registry.Entry("frames", FrameSettings, FrameSettings).parse(encoder))
        return
    report = extract(
        videos_of(arguments),
        arguments.out,
        encoder=encoder,
        num_workers=arguments.workers,
        allow_missing=arguments.allow_missing,
    )
    print(report)


def run_cache_frames(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.features.frame_cache import FrameSettings

    write_frames(arguments, FrameSettings(size=arguments.size, fps=arguments.fps, quality=arguments.quality))


def write_frames(arguments: argparse.Namespace, settings: Any) -> None:
    from mmpt_plugin.features.cache_frames import cache_frames

    report = cache_frames(
        videos_of(arguments),
        arguments.out,
        settings=settings,
        num_workers=arguments.workers,
        allow_missing=arguments.allow_missing,
    )
    print(report)


def videos_of(arguments: argparse.Namespace) -> Sequence[Path]:
    """The share `--part 3/16` of the videos; each keeps the id that it has among all."""
    from mmpt_plugin.features.extract import list_videos

    videos, part = list_videos(arguments.videos, out=arguments.out), arguments.part
    if part is None:
        return videos
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= len(videos)):
        raise ValueError(f"--part is I/N with 1 <= I <= N <= {len(videos)} (videos), got '{part}'")
    return videos[int(number) - 1 :: int(count)]


def component(text: str) -> dict[str, Any]:
    """A component by its name, or by YAML with its settings."""
    settings = yaml.safe_load(text)
    return settings if isinstance(settings, dict) else {"_name": settings}


def run_shard(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.clips.prepare import CaptionLimits, convert_mmpt_shards, make_shards
    from mmpt_plugin.features.files import read_list

    common = {
        "features": arguments.features,
        "captions": arguments.captions,
        "tokenizer": arguments.tokenizer,
        "out": arguments.out,
    }
    if (arguments.features / f"{arguments.split}_meta.pkl").is_file():
        if arguments.videos or arguments.max_characters or arguments.allow_missing:
            raise ValueError(
                f"{arguments.features} holds the original's shards, which are converted whole: leave out --videos, "
                "--max-characters and --allow-missing"
            )
        print(convert_mmpt_shards(**common, split=arguments.split))
        return
    report = make_shards(
        read_list(arguments.videos) if arguments.videos else None,
        **common,
        allow_missing=arguments.allow_missing,
        limits=CaptionLimits(
            max_tokens=arguments.max_tokens,
            max_characters=arguments.max_characters,
            unit=None if arguments.deduplicate == "none" else arguments.deduplicate,
        ),
    )
    print(report)


def run_convert(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.models.embedding import build_encoder
    from mmpt_plugin.models.pretrained import absolute

    model = load_model(arguments)
    if arguments.encoder:
        model.check_encoder(build_encoder(model.encoder))
        model.encoder = absolute(model.encoder)
    model.save_pretrained(arguments.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokenizer = "with its tokenizer" if model.tokenizer is not None else "without a tokenizer (--tokenizer adds one)"
    print(f"wrote {arguments.out}: {parameters:,} parameters, {tokenizer}")
    if model.encoder is not None:
        settings = ", ".join(f"{key} {value}" for key, value in model.encoder.items() if key != "_name")
        print(f"encoder {model.encoder['_name']}, which stays where it is: {settings or 'no files'}")


def run_embed(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.search.embed import write_text_vectors, write_video_vectors

    if bool(arguments.videos) == bool(arguments.text):
        raise ValueError("give either videos or --text FILE")
    model = load_model(arguments)
    if arguments.videos and model.encoder is None and not model.takes_frames:
        raise ValueError("videos need --encoder, what made the features the model was trained on (see mmpt list)")
    if arguments.text:
        print(write_text_vectors(model, arguments.text, arguments.out))
        return 0
    report = write_video_vectors(
        model,
        arguments.videos,
        arguments.out,
        num_workers=arguments.workers,
        truncate=arguments.truncate,
    )
    print(report)
    return 2 if report.failed and not arguments.allow_missing else 0


def run_train(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.config import fine_tuned, load_project, plain

    project = fine_tuned(plain(load_project(arguments.project, arguments.overrides)))
    try:
        from mmpt_plugin.fairseq_bridge.train import command_line, train
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs fairseq, see README ({error})") from error

    if arguments.dry_run:
        print(command_line(project))
        return 0
    if train(project, resume=arguments.resume):
        return 0
    save_dir = project["checkpoint"]["save_dir"]
    print(f"mmpt train: stopped, saved in {save_dir}; the same command continues", file=sys.stderr)
    return INTERRUPTED


def run_launch(arguments: argparse.Namespace) -> int:
    launch, command = launching(), arguments.launched
    profile = launch.load_profile(arguments.profile, arguments.for_profile)
    if arguments.parts > 1 and not hasattr(command, "part"):
        raise ValueError("--parts shares out videos: it goes with extract")
    if command.command == "train":
        plans = launch.plan_training(command.project, command.overrides, profile, resume=arguments.resume)
    else:
        inputs = launched_videos(command, arguments.parts)
        plans = launch.plan_command(arguments.words, RUNS, parts=arguments.parts, inputs=inputs)
    logs = (plans[0].folder if len(plans) == 1 else plans[0].folder.parent) / "slurm"
    if arguments.parts > 1:
        plans = launch.unfinished(plans)
        print(
            f"{len(plans)} of {arguments.parts} parts to do: {', '.join(plan.folder.name for plan in plans) or 'none'}"
        )
    name = f"mmpt-{command.command}"
    if arguments.dry_run:
        print(launch.dry_run(plans, profile, name=name, logs=logs))
        return 0
    launched = launch.submit(plans, profile, name=name, logs=logs) if plans else []
    for job in launched:
        print(f"job {job.job_id}: {job.folder}, log {job.log}")
    if not arguments.wait:
        return 0
    states = launch.wait(launched)
    for job, state in zip(launched, states, strict=True):
        print(f"job {job.job_id}: {state} {launch.failure(job)}".rstrip())
    return 0 if set(states) <= {"COMPLETED"} else 1


def launching() -> Any:
    try:
        from mmpt_plugin import launch
    except ModuleNotFoundError as error:
        raise ValueError(f"jobs need submitit: pip install 'mmpt_plugin[slurm]' ({error})") from error
    return launch


def launched_videos(command: argparse.Namespace, parts: int) -> Sequence[Path]:
    """What an extraction is to work on, by which a second launch knows that the first did the same."""
    if command.command not in ("extract", "cache-frames"):
        return []
    from mmpt_plugin.features.extract import list_videos

    videos = list_videos(command.videos, out=command.out)
    if parts > len(videos):
        raise ValueError(f"--parts {parts} of {len(videos)} videos")
    return videos


def run_jobs(arguments: argparse.Namespace) -> None:
    describe_jobs = launching().describe_jobs

    lines = list(describe_jobs(arguments.folder))
    print("\n".join(lines) or f"no job was launched into a folder under {arguments.folder}")


def run_evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from mmpt_plugin.config import load_benchmarks, load_project, plain
    from mmpt_plugin.report import has_timelines, metrics_table, not_there_table, write_timelines
    from mmpt_plugin.tasks.evaluate import evaluate, evaluate_all

    def write(result: dict[str, Any]) -> None:
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(arguments.json, lambda path: path.write_text(json.dumps(result, indent=2) + "\n"))

    project, console = plain(load_project(arguments.project, arguments.overrides)), Console()
    if (project.get("task") or {}).get("_name"):
        result = evaluate(project)
        results = [result]
    else:
        result = evaluate_all(load_benchmarks(arguments.project, arguments.overrides, project), keep=write)
        results = list(result["benchmarks"].values())
        if result["not_there"]:
            console.print(not_there_table(result["not_there"]))
    for one in results:
        console.print(metrics_table(one))
        if arguments.html and has_timelines(one):
            write_timelines(arguments.html / f"{one.get('benchmark', one['task'])}.html", one)
    write(result)
    if failed := result.get("failed"):
        print(
            f"mmpt evaluate: not measured: {'; '.join(f'{name}: {why}' for name, why in failed.items())}",
            file=sys.stderr,
        )
    return 2 if failed else 0


def run_report(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.report import write_curve, write_page

    path = arguments.folder / "metrics.json"
    if not path.is_file():
        raise ValueError(f"no {path}: write it with mmpt evaluate PROJECT task=NAME checkpoint=PATH --json {path}")
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    write_curve(arguments.folder / "train.log", arguments.folder / "curve.png")
    write_page(
        arguments.folder / "index.html",
        title="Unseen videos, found by text",
        result=result,
        videos=arguments.videos,
    )
    print(f"wrote {arguments.folder / 'curve.png'} and {arguments.folder / 'index.html'}")


def run_doctor(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.doctor import examine

    for line in examine():
        print(line)


if __name__ == "__main__":
    sys.exit(main())
