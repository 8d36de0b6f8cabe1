"""What would be submitted: batch files, each rank's command, sweeps and shares."""

import os
import re
import shlex
import subprocess
from itertools import pairwise

import pytest

from mmpt_plugin.cli import main
from mmpt_plugin.launch import load_profile
from mmpt_plugin.launch.batch_file import batch_file, only_the_batch_file_counts
from mmpt_plugin.launch.submit import combinations
from tests.conftest import ROOT

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


def test_a_dry_run_prints_one_ranks_command_and_what_differs(capsys):
    """The shell completes the command of any rank from what the last line says."""
    text = printed(capsys, *TRAINING)
    (command,) = [line for line in text.splitlines() if line.startswith("fairseq-train ")]
    added = re.search(r"ranks 1 to 31 add (.*)$", text).group(1)
    shell = ["bash", "-c", f"printf '%s\\n' {command} {added}"]
    words = subprocess.run(shell, env={"RANK": "13"}, text=True, capture_output=True, check=True).stdout.splitlines()
    given = dict(pairwise(words))
    assert {"--distributed-rank", "--device-id"}.isdisjoint(shlex.split(command))
    assert (given["--distributed-world-size"], given["--distributed-rank"], given["--device-id"]) == ("32", "13", "5")
    assert given["--distributed-init-method"].startswith("tcp://")
    assert "--fp16" in words
    assert "--cpu" not in words


def test_a_batch_file_for_a_cluster_with_demands_of_its_own(capsys, tmp_path):
    """The profile that the documentation shows: each key is in the batch file, and nothing that it leaves out."""
    page = (ROOT / "docs" / "how-to" / "slurm.md").read_text()
    (tmp_path / "mine.yaml").write_text(re.search(r'title="mine.yaml"\n(.*?)```', page, re.S).group(1))
    text = printed(capsys, "launch", "videoclip/pretrain", "--profile", f"{tmp_path}/mine.yaml", "--dry-run")
    before, srun, _ = re.split(r"^srun (.*)$", text, flags=re.M)
    directives = {line.removeprefix("#SBATCH --") for line in before.splitlines() if line.startswith("#SBATCH ")}
    assert {"gres=gpu:a100:4", "reservation=icml", "exclusive", "mail-type=END,FAIL", "mail-user=me@example.org"} <= (
        directives
    )
    assert not any(line.startswith(("mem", "wckey", "gpus")) for line in directives)
    assert "\nmodule load cuda/12.6\n" in before
    assert "--cpus-per-task=8" in srun.split()


@pytest.mark.parametrize(
    ("override", "written"),
    [
        ("slurm.gpu_type=v100", "#SBATCH --gpus-per-node=v100:8\n"),
        ('slurm.extra.comment="it\'s $HOME; #1"', "#SBATCH --comment='it'\"'\"'s $HOME; #1'\n"),
        ("slurm.extra.job-name=mine", "#SBATCH --job-name=mine\n"),
        ("slurm.extra.wckey=vision", "#SBATCH --wckey=vision\n"),
        ("slurm.mem_gb=1.5", "#SBATCH --mem=1536MB\n"),
        ("slurm.python=apptainer exec a.sif python", " apptainer exec a.sif python -u -m submitit.core._submit "),
        ("slurm.extra_srun.container-image=a b.sqsh", " '--container-image=a b.sqsh' "),
        ("slurm.extra_srun.no-container-entrypoint=true", " --no-container-entrypoint "),
    ],
)
def test_a_key_of_the_profile_is_in_the_batch_file(override, written, tmp_path):
    assert written in batch_file(load_profile("v100x8", [override]), name="mmpt", logs=tmp_path, num_jobs=1)


@pytest.mark.parametrize(
    ("override", "absent"),
    [("slurm.gres=none", "--gpus-per-node"), ("slurm.mem_gb=none", "--mem"), ("slurm.extra.wckey=null", "--wckey")],
)
def test_what_a_cluster_does_not_take_can_be_left_out(override, absent, tmp_path):
    text = batch_file(load_profile("v100x8", [override]), name="mmpt", logs=tmp_path, num_jobs=1)
    assert absent not in text
    assert "--ntasks-per-node=8" in text


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
    assert text.count("fairseq-train --") == 1


def test_an_arrays_batch_file_has_as_many_members(capsys, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    words = ["extract", str(tmp_path), "--encoder", "s3d", "--out", "features", "--profile", "cpu", "--parts", "3"]
    text = printed(capsys, "launch", *words, "--dry-run")
    assert "#SBATCH --array=0-2%3\n" in text
    assert "mmpt extract" in text
    assert text.count("--part ") == 3
    many = ["launch", *words[:-1], "3", "--parallel", "2", "--dry-run"]
    assert "#SBATCH --array=0-2%2\n" in printed(capsys, *many)


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
    folders = re.findall(r"^# (runs/\S*?):?(?: mmpt train .*)?$", text, re.M)
    assert folders == [f"runs/videoclip/pretrain/optimization.lr={rate}" for rate in ("0.0001", "5e-05")]
    assert f"--save-dir {folders[0]}" in text
    assert " --lr 0.0001 " in text
    assert "mmpt train videoclip/pretrain optimization.lr=5e-05 " in text
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
    assert main(["launch", "videoclip/pretrain", "--profile", "v100x8", "--no-check"]) == 2
    assert "SLURM is not installed here: launch from a login node, or locally" in capsys.readouterr().err


def test_missing_data_and_weights_are_named_and_nothing_is_launched(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["launch", "videoclip/pretrain", "--profile", "local", "model.bert=nobody/nothing-of-this-name"]
    assert main(words) == 2
    weights, data, internet, end = capsys.readouterr().err.splitlines()
    assert "model.bert: nobody/nothing-of-this-name is not a folder here" in weights
    assert data.startswith("mmpt launch: train: no shards in data/howto100m/shards/train")
    assert "nodes without internet need HF_HUB_OFFLINE=1" in internet
    assert end == "mmpt launch: nothing was launched; --no-check launches it all the same"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_them_too_and_prints_the_batch_file(capsys):
    assert main(TRAINING) == 0
    shown = capsys.readouterr()
    assert "no shards in data/howto100m/shards/train" in shown.err
    assert shown.out.startswith("#!/bin/bash\n")
    assert main([*TRAINING, "--no-check"]) == 0
    assert "no shards" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "videoclip/zeroshot", "task=msrvtt", "checkpoint=/nowhere.pt"], "no checkpoint /nowhere.pt"),
        (["evaluate", "videoclip/zeroshot", "task=msrvtt"], "project 'videoclip/zeroshot' needs checkpoint=VALUE"),
        (["embed", "/nowhere.pt", "video.mp4", "--out", "x.safetensors"], "no checkpoint /nowhere.pt"),
    ],
)
def test_a_command_is_checked_before_it_is_launched(words, message, capsys):
    assert main(["launch", *words, "--profile", "cpu", "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_the_variables_of_the_job_in_which_one_launches_are_not_inherited(monkeypatch):
    """Except where SLURM's configuration is. sbatch's own variables count where the profile says nothing."""
    before = {"SLURM_JOB_ID": "7", "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_CONF": "/etc/slurm.conf", "SRUN_DEBUG": "3"}
    before |= {"SBATCH_RESERVATION": "icml", "SBATCH_MEM_PER_NODE": "1G", "SBATCH_TIMELIMIT": "5"}
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    with only_the_batch_file_counts(load_profile("v100x8")):
        assert before.keys() & os.environ.keys() == {"SLURM_CONF", "SBATCH_RESERVATION"}
    with only_the_batch_file_counts(load_profile("v100x8", ["slurm.mem_gb=none"])):
        assert "SBATCH_MEM_PER_NODE" in os.environ
    assert before.items() <= os.environ.items()


def test_a_folder_that_sbatch_would_misread_is_refused(capsys):
    assert main([*TRAINING, "checkpoint.save_dir=runs/50%j"]) == 2
    assert "the folder must not contain %" in capsys.readouterr().err
