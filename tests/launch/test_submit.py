"""What would be submitted: batch files, each rank's command, sweeps and shares."""

import shlex
from itertools import pairwise

import pytest

from mmpt_plugin.cli import main
from mmpt_plugin.launch.submit import combinations

pytestmark = pytest.mark.fairseq

TRAINING = ["launch", "videoclip/pretrain", "--profile", "slurm/v100x8x4.yaml", "--dry-run"]


def printed(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_dry_run_prints_the_batch_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    text = printed(capsys, *TRAINING, "slurm.account=vision", f"checkpoint.save_dir={tmp_path}/run")
    for line in (
        "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--constraint=volta32gb", "--time=4320",
        "--signal=USR2@300", "--requeue", "--partition=gpu", "--account=vision",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "--kill-on-bad-exit=1" in text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_command_of_each_rank(capsys):
    text = printed(capsys, *TRAINING)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("fairseq-train ")]
    assert len(commands) == 32
    for rank, words in enumerate(commands):
        given = dict(pairwise(words))
        assert given["--distributed-world-size"] == "32"
        assert given.get("--distributed-rank", "0") == str(rank)
        assert given.get("--device-id", "0") == str(rank % 8)
        assert given["--distributed-init-method"].startswith("tcp://")
        assert "--fp16" in words
        assert "--cpu" not in words


def test_bf16_on_h100_can_be_looked_at_too(capsys):
    words = [
        "launch",
        "videoclip/pretrain",
        "--profile",
        "h100x8x2",
        "--dry-run",
        "common.bf16=true",
        "common.fp16=false",
    ]
    text = printed(capsys, *words)
    assert "# the job itself trains in bf16, for which fairseq-train has no flag" in text
    assert text.count("fairseq-train --") == 16


def test_an_arrays_batch_file_has_as_many_members(capsys, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    words = ["extract", str(tmp_path), "--encoder", "s3d", "--out", "features", "--profile", "cpu", "--parts", "3"]
    text = printed(capsys, "launch", *words, "--dry-run")
    assert "#SBATCH --array=0-2%3\n" in text
    assert "mmpt extract" in text
    assert text.count("--part ") == 3


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (["a=1"], [["a=1"]]),
        (["a=1,2", "b=3"], [["a=1", "b=3"], ["a=2", "b=3"]]),
        (["a=1,2", "b=x,y"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["a=[1,2]", "b={c: 1, d: 2}"], [["a=[1,2]", "b={c: 1, d: 2}"]]),
        (["a=[1],[2]"], [["a=[1]"], ["a=[2]"]]),
    ],
)
def test_a_comma_outside_brackets_is_a_sweep(overrides, runs):
    assert list(combinations(overrides)) == runs


def test_each_run_of_a_sweep_has_a_folder_of_its_own(capsys):
    text = printed(capsys, *TRAINING, "optimization.lr=1e-4,5e-5", "slurm.nodes=1", "slurm.gpus_per_node=1")
    folders = [line[2:] for line in text.splitlines() if line.startswith("# runs/")]
    assert folders == [f"runs/videoclip/pretrain/optimization.lr={rate}" for rate in ("0.0001", "5e-05")]
    assert [f"--save-dir {folder}" in text or f"--save-dir '{folder}'" in text for folder in folders] == [True, True]
    assert " --lr 0.0001 " in text
    assert "#SBATCH --array=0-1%2\n" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["videoclip/pretrain", "common.bf16=true", "common.fp16=false"], "common.bf16 is set, but"),
        (["videoclip/pretrain", "optimization.lrr=1"], "no key 'optimization.lrr'. Did you mean 'lr'?"),
        (["videoclip/pretrian"], "no project 'videoclip/pretrian'. Did you mean 'videoclip/pretrain'?"),
        (["videoclip/pretrain", "--parts", "4"], "--parts divides videos into parts"),
        (["videoclip/pretrain", "optimization.lr=[1e-4"], "override 'optimization.lr=[1e-4'"),
    ],
)  # fmt: skip
def test_what_would_fail_in_the_queue_is_refused_before(words, message, capsys):
    assert main(["launch", *words, "--profile", "v100x8", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_slurm_the_local_profile_is_named(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["launch", "videoclip/pretrain", "--profile", "v100x8"]) == 2
    assert "SLURM is not installed here: launch from a login node, or locally" in capsys.readouterr().err
