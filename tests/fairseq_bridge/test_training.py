"""End to end, with the real fairseq-train: by path and installed, stopped and resumed, alone and in two processes."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmpt_plugin import VideoCLIP
from mmpt_plugin.report.curve import records
from tests.conftest import ROOT, TINY_MODEL, run

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]


def flags(save_dir: Path, shards: Path, **options: object) -> list[object]:
    """All arguments of fairseq-train; `options` replace or add flags, True means a switch."""
    defaults = {
        "task": "video_text_pretraining",
        "arch": "videoclip",
        "criterion": "nce",
        "dataset": f"{{_name: overlapped_clips, splits: {{train: {shards}}}, pairs_per_video: 2}}",
        "sampler": "{_name: retrieval_augmented, cluster_size: 3, num_neighbors: 6}",
        "optimizer": "adam",
        "lr": 0.001,
        "batch_size": 1,
        "max_epoch": 2,
        "num_workers": 1,
        "disable_validation": True,
        "save_dir": save_dir,
        "log_format": "json",
        "log_interval": 1,
        **TINY_MODEL,
    }
    words: list[object] = []
    for key, value in (defaults | options).items():
        if value is not None:
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [value])]
    return words


def losses(output: str) -> list[float]:
    """The loss of every update, from the log."""
    lines = [line[line.index('{"epoch"') :] for line in output.splitlines() if "| train_inner |" in line]
    return [float(json.loads(line)["loss"]) for line in lines]


def weights(save_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(save_dir / "checkpoint_last.pt", weights_only=False)["model"]


@pytest.fixture(scope="module")
def straight(kitchen, tmp_path_factory) -> tuple[Path, list[float]]:
    """Four epochs in one go, 4 updates each, from the clone by path."""
    save_dir = tmp_path_factory.mktemp("straight")
    done = run("fairseq-train", "--user-dir", "mmpt_plugin", *flags(save_dir, kitchen.shards, max_epoch=4))
    return save_dir, losses(done.stdout)


def test_trains_from_a_clone_by_path(straight):
    _, loss = straight
    assert len(loss) == 16
    assert all(torch.isfinite(torch.tensor(loss)))


def test_the_log_file_has_each_update_once(kitchen, tmp_path):
    log = tmp_path / "train.log"
    run("fairseq-train", "--user-dir", "mmpt_plugin", *flags(tmp_path, kitchen.shards, log_file=log, max_epoch=3))
    updates = [record["num_updates"] for record in records(log) if "num_updates" in record]
    assert updates == [str(number) for number in range(1, 13)]


def test_the_checkpoint_loads_without_fairseq(straight):
    save_dir, _ = straight
    code = (
        "import sys; sys.modules['fairseq'] = None\n"
        "from mmpt_plugin import VideoCLIP\n"
        f"print(VideoCLIP.from_pretrained('{save_dir}/checkpoint_last.pt').config.num_attention_heads)"
    )
    assert run("python", "-c", code).stdout.strip() == "2"


@pytest.mark.parametrize(
    "stop", [{"max_epoch": 2}, {"max_update": 6, "save_interval_updates": 6}], ids=["between", "within"]
)
def test_a_resumed_run_continues_as_if_never_stopped(straight, kitchen, tmp_path, stop):
    """Stopped between two epochs, or within one: losses and weights are those of the run in one go."""
    run("fairseq-train", "--user-dir", "mmpt_plugin", *flags(tmp_path, kitchen.shards, **({"max_epoch": 4} | stop)))
    resumed = run("fairseq-train", "--user-dir", "mmpt_plugin", *flags(tmp_path, kitchen.shards, max_epoch=4))
    straight_dir, loss = straight
    rest = losses(resumed.stdout)
    assert rest == pytest.approx(loss[-len(rest) :], abs=2e-4)
    assert len(rest) == (8 if "max_update" not in stop else 10)
    for key, value in weights(straight_dir).items():
        torch.testing.assert_close(weights(tmp_path)[key], value, atol=1e-5, rtol=1e-4)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def test_two_processes_train_as_one_with_both_batches(kitchen, tmp_path):
    """Each rank takes one cluster of a step; one process with two clusters a batch sees the same pairs."""
    one = run("fairseq-train", "--user-dir", "mmpt_plugin", *flags(tmp_path / "one", kitchen.shards, batch_size=2))
    port = free_port()
    words = flags(
        tmp_path / "two", kitchen.shards, cpu=True, distributed_backend="gloo", ddp_backend="legacy_ddp",
        distributed_init_method=f"tcp://localhost:{port}", distributed_world_size=2, distributed_no_spawn=True,
        device_id=0,
    )  # fmt: skip
    command = [str(Path(sys.executable).parent / "fairseq-train"), "--user-dir", "mmpt_plugin", *map(str, words)]
    ranks = [
        subprocess.Popen(
            [*command, "--distributed-rank", str(rank)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs[0][-2000:]
    assert losses(outputs[0]) == pytest.approx(losses(one.stdout), abs=2e-4)
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[key], value, atol=1e-5, rtol=1e-4)


def test_mmpt_train_starts_the_processes_itself_and_resumes(kitchen, tmp_path):
    """On a CPU too; a distributed resume reads the checkpoint through torch's weights_only loader."""
    project = tmp_path / "project.yaml"
    project.write_text(
        f"""# @package _global_
defaults: [/projects/base@_global_, /tasks@task: toy_kitchen, _self_]
model: {json.dumps({"_name": "videoclip", **TINY_MODEL})}
criterion: {{_name: nce}}
sampler: {{_name: uniform, cluster_size: 3}}
task: {{dataset: {{splits: {{train: "{kitchen.shards}"}}, pairs_per_video: 2}}}}
dataset: {{num_workers: 0}}
common: {{log_format: json, log_interval: 1}}
distributed_training: {{distributed_world_size: 2}}
checkpoint: {{save_dir: "{tmp_path / "run"}"}}
"""
    )
    run("mmpt", "train", project, "optimization.max_epoch=1")
    run("mmpt", "train", project, "optimization.max_epoch=2", "--resume")
    assert "Loaded checkpoint" in (tmp_path / "run" / "train.log").read_text()
    assert VideoCLIP.from_pretrained(tmp_path / "run" / "checkpoint_last.pt").config.hidden_size == 16
    assert (tmp_path / "run" / "project.yaml").is_file()


def test_the_dry_run_prints_a_command_that_trains(kitchen, tmp_path):
    overrides = [f"model.{key}={value}" for key, value in TINY_MODEL.items()]
    printed = run(
        "mmpt", "train", "videoclip/toy_kitchen", "--dry-run", f"checkpoint.save_dir={tmp_path}",
        f"task.dataset.splits.train={kitchen.shards}", "sampler.cluster_size=4", "sampler.num_neighbors=8",
        "optimization.max_epoch=1", f"common.log_file={tmp_path}/log", *overrides,
    ).stdout  # fmt: skip
    assert printed.startswith("fairseq-train ")
    run("bash", "-c", str(Path(sys.executable).parent / printed.strip()))
    assert (tmp_path / "checkpoint_last.pt").is_file()


def test_a_third_party_plugin_trains_with_its_own_task_and_criterion(tmp_path):
    """tests/plugin/toy_plugin is outside the package; fairseq-train gets only its user directory."""
    plugin = Path(__file__).parents[1] / "plugin" / "toy_plugin"
    words = flags(
        tmp_path / "run", tmp_path, task="signal_pretraining", criterion="toy_hinge", margin=0.5,
        dataset="{_name: signals, num_videos: 12}", feature_dim=4, vocab_size=40, greeting="good morning",
    )  # fmt: skip
    done = run("fairseq-train", "--user-dir", plugin, *words, cwd=tmp_path)
    assert len(losses(done.stdout)) == 8


def test_an_installed_wheel_trains_from_another_folder(kitchen, tmp_path):
    """Nothing of the clone is on the path; the YAML travels inside the package."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("mmpt_plugin-*.whl")
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    tops = {p.name for p in site.iterdir() if p.suffix != ".dist-info"}
    assert tops == {"mmpt_plugin", "bin"}
    user_dir = site / "mmpt_plugin"
    words = flags(tmp_path / "run", kitchen.shards, max_epoch=1)
    done = run("fairseq-train", "--user-dir", user_dir, *words, cwd=tmp_path, PYTHONPATH=str(site))
    assert len(losses(done.stdout)) == 4
    code = "import mmpt_plugin, mmpt_plugin.config as c; print(mmpt_plugin.__file__); print(c.available('projects'))"
    where = run("python", "-c", code, cwd=tmp_path, PYTHONPATH=str(site)).stdout
    assert where.startswith(str(site))
    assert "videoclip/pretrain" in where


def test_the_documented_command_trains(kitchen, tmp_path):
    """The fairseq-train command of the documentation, word for word but for its folders and its length."""
    page = ROOT / "docs" / "how-to" / "fairseq-train.md"
    block = re.search(r"```bash\n(fairseq-train.*?)```", page.read_text(), re.S).group(1)
    command = " ".join(block.replace("\\\n", " ").split())
    command = command.replace("data/toy_kitchen/shards/train", str(kitchen.shards)).replace(
        "runs/by_hand", str(tmp_path)
    )
    command = re.sub(r"--max-epoch \d+", "--max-epoch 1", command).replace("--feature-dim 1280", "--feature-dim 512")
    command = command.replace("cluster_size: 16, num_neighbors: 32", "cluster_size: 4, num_neighbors: 8")
    run("bash", "-c", command, cwd=tmp_path, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert (tmp_path / "checkpoint_last.pt").is_file()


def test_the_documented_file_trains_with_fairseq_hydra_train(kitchen, tmp_path):
    """From any folder, with the documentation's file but for its folders, sizes and length."""
    page = (ROOT / "docs" / "how-to" / "fairseq-train.md").read_text()
    text = page.split('title="run.yaml"\n')[1].split("```")[0]
    text = text.replace("data/toy_kitchen/shards/train", str(kitchen.shards)).replace(
        "cluster_size: 16", "cluster_size: 4"
    )
    text = text.replace("runs/hydra", str(tmp_path / "run")).replace("max_epoch: 13", "max_epoch: 1")
    (tmp_path / "run.yaml").write_text(text.replace("feature_dim: 1280", "feature_dim: 512, num_text_layers: 1"))
    command = page.split("```bash\nfairseq-hydra-train")[1].split("\n")[0]
    command = f"fairseq-hydra-train{command} common.cpu=true distributed_training.distributed_world_size=1"
    run("bash", "-c", command, cwd=tmp_path, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert VideoCLIP.from_pretrained(tmp_path / "run" / "checkpoint_last.pt").config.hidden_size == 128


def test_torchrun_without_fairseqs_flags_is_stopped(kitchen, tmp_path):
    """fairseq would train independent copies into one folder, and exit with 0."""
    done = run(
        "fairseq-train", "--user-dir", "mmpt_plugin", *flags(tmp_path, kitchen.shards), check=False, WORLD_SIZE="2"
    )
    assert done.returncode != 0
    assert "WORLD_SIZE is 2, but fairseq uses one process" in done.stdout + done.stderr
