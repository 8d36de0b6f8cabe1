"""What `mmpt train` prints at its end: where the files are, and commands that the command line accepts."""

from argparse import Namespace

import pytest

from mmpt_plugin.cli import parse
from mmpt_plugin.cli.train import next_commands, results


def project(save_dir, model="videoclip", benchmark=None):
    task = {"_name": "video_text_pretraining", "dataset": {"videos": None}, "benchmark": benchmark}
    return {"model": {"_name": model}, "task": task, "checkpoint": {"save_dir": str(save_dir)}}


@pytest.mark.parametrize(
    ("name", "overrides", "model", "expected"),
    [
        ("videoclip/toy_kitchen", [], "videoclip", "videoclip/zeroshot task=NAME"),
        ("videoclip/toy_kitchen", ["task=howto100m"], "videoclip", "videoclip/zeroshot task=NAME"),
        ("mine.yaml", ["task.benchmark=youcook2"], "clip2video", "clip2video/evaluate task=youcook2"),
        ("videoclip/finetune", ["task=coin"], "videoclip_segmenter", "videoclip/zeroshot task=coin"),
        ("clip_mean/finetune/didemo", [], "clip_mean", "clip_mean/evaluate task=didemo"),
        ("mine.yaml", ["task.benchmark={_name: x}"], "own_model", "videoclip/zeroshot task=NAME"),
    ],
)
def test_the_evaluation_fits_the_model_and_the_task(tmp_path, name, overrides, model, expected):
    lines = next_commands(project(tmp_path, model), Namespace(project=name, overrides=overrides), tmp_path)
    assert lines[0].startswith(f"  mmpt evaluate {expected} checkpoint={tmp_path}/checkpoint_last.pt")
    assert any("`mmpt list`" in line for line in lines) == ("NAME" in expected)
    commands = [line.split()[1:] for line in lines if line.startswith("  mmpt ")]
    assert [parse(words).command for words in commands] == ["evaluate", "report", "convert"]


def test_a_report_is_offered_for_retrieval_whose_log_it_can_read(tmp_path):
    arguments = Namespace(project="videoclip/finetune", overrides=[])
    other = project(tmp_path, benchmark={"_name": "action_segmentation"})
    elsewhere = project(tmp_path) | {"common": {"log_file": str(tmp_path.parent / "log")}}
    for made in (other, elsewhere):
        assert not any("mmpt report" in line for line in next_commands(made, arguments, tmp_path))


def test_the_files_are_named_and_the_best_checkpoint_comes_with_a_warning(tmp_path):
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        (tmp_path / name).touch()
    assert results(tmp_path, tmp_path / "train.log") == [
        f"checkpoints  {tmp_path}: checkpoint_best.pt, checkpoint_last.pt",
        f"log          {tmp_path}/train.log",
        f"settings     {tmp_path}/project.yaml",
    ]
    assert len(results(tmp_path, None)) == 2
    lines = next_commands(project(tmp_path), Namespace(project="x.yaml", overrides=[]), tmp_path)
    assert "evaluate it only on other videos" in lines[-1]
