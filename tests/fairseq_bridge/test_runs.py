"""A run's folder over several commands: changed settings, finished runs, interrupted ones; real trainings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("fairseq")

from mmpt_plugin.checkpoint import read_torch_file
from mmpt_plugin.fairseq_bridge.run_folder import check_optimizer_state, check_restart, check_starting_point
from mmpt_plugin.fairseq_bridge.train import user_error
from tests.conftest import ROOT, TINY_MODEL, run

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]


def words(kitchen, folder, *overrides, epochs=2):
    return [
        "train", "videoclip/toy_kitchen", *(f"model.{key}={value}" for key, value in TINY_MODEL.items()),
        f"task.dataset.splits.train={kitchen.shards}", "task.dataset.pairs_per_video=2", "dataset.num_workers=0",
        "sampler._name=uniform", "sampler.cluster_size=3",
        f"optimization.max_epoch={epochs}", "lr_scheduler.warmup_updates=1", "common.log_interval=1",
        f"checkpoint.save_dir={folder}", *overrides,
    ]  # fmt: skip


def log(folder: Path) -> list[dict]:
    lines = (folder / "train.log").read_text().splitlines()
    return [json.loads(line[line.index('{"') :]) for line in lines if '{"epoch"' in line and '"num_updates"' in line]


def updates(folder: Path) -> int:
    return read_torch_file(folder / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]


@pytest.fixture(scope="module")
def trained(kitchen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run("mmpt", *words(kitchen, folder))
    return folder


def test_a_changed_setting_is_refused_by_its_name_and_the_record_stays(kitchen, trained):
    before = (trained / "project.yaml").read_text(), (trained / "checkpoint_last.pt").stat().st_mtime_ns
    changed = ["optimization.lr=[1e-4]", "sampler.cluster_size=4"]
    done = run("mmpt", *words(kitchen, trained, *changed), check=False)
    assert done.returncode == 2
    assert "optimization.lr is [0.0001], was [0.002]; sampler.cluster_size is 4, was 3" in done.stderr
    assert "Choose another checkpoint.save_dir, or continue that run with the changed settings: --resume" in done.stderr
    assert ((trained / "project.yaml").read_text(), (trained / "checkpoint_last.pt").stat().st_mtime_ns) == before


def test_a_finished_run_says_so_and_trains_nothing(kitchen, trained):
    before = (trained / "checkpoint_last.pt").stat().st_mtime_ns
    done = run("mmpt", *words(kitchen, trained, "dataset.num_workers=1", "common.log_interval=7"))
    assert f"{trained} is finished: 2 epochs, 8 updates" in done.stderr
    assert "--resume" in done.stderr
    assert (trained / "checkpoint_last.pt").stat().st_mtime_ns == before


def test_a_finished_run_is_trained_further_if_that_is_asked_for(kitchen, tmp_path):
    run("mmpt", *words(kitchen, tmp_path, epochs=1))
    assert updates(tmp_path) == 4
    assert "optimization.max_epoch is 2, was 1" in run("mmpt", *words(kitchen, tmp_path), check=False).stderr
    run("mmpt", *words(kitchen, tmp_path), "--resume")
    assert updates(tmp_path) == 8
    assert yaml.safe_load((tmp_path / "project.yaml").read_text())["optimization"]["max_epoch"] == 2


def test_another_architecture_in_the_folder_is_one_line(kitchen, trained):
    done = run("mmpt", *words(kitchen, trained, "model.hidden_size=8", epochs=3), "--resume", check=False)
    assert done.returncode == 2
    assert "does not fit the architecture of the project's model" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_that_diverges_is_one_line(kitchen, tmp_path):
    done = run("mmpt", *words(kitchen, tmp_path, "optimization.lr=[1e30]"), check=False)
    assert done.returncode == 2
    assert "mmpt train: the training has diverged (gradients are Nan/Inf): lower optimization.lr" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_to_start_from_is_checked_before(trained, tmp_path):
    given = tmp_path / "given.pt"
    section = {"save_dir": str(tmp_path / "run"), "finetune_from_model": str(given)}
    with pytest.raises(ValueError, match=f"no checkpoint at {given}"):
        check_starting_point(section)
    content = torch.load(trained / "checkpoint_last.pt", weights_only=False)
    torch.save(content, given)
    check_starting_point(section)
    damaged = bytearray(given.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    given.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{given} is damaged, or not a torch file: Bad CRC-32"):
        check_starting_point(section)
    name = next(iter(content["model"]))
    content["model"][name].view(-1)[0] = float("nan")
    torch.save(content, given)
    with pytest.raises(ValueError, match=f"{given}: {name} holds NaN or infinity"):
        check_starting_point(section)
    torch.save({"model": {}}, given)
    with pytest.raises(ValueError, match=f"{given} is not the checkpoint of a training"):
        check_starting_point(section)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint_last.pt").touch()  # from then on, the run continues from this
    check_starting_point(section)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["param_groups"][0].update(lr="0.1"),
            'has a damaged state of the optimizer: "0.1" is not a',
        ),
        (lambda state: state["param_groups"][0].update(betas=None), "has a damaged state of the optimizer: TypeError"),
        (lambda state: state["state"][0]["exp_avg"].view(-1)[:1].fill_(torch.inf), "0.exp_avg holds NaN or infinity"),
        (lambda state: state.pop("state"), "has a damaged state of the optimizer: KeyError"),
    ],
)
def test_the_state_of_the_optimizer_is_checked_before(trained, change, message):
    state = torch.load(trained / "checkpoint_last.pt", weights_only=False)["last_optimizer_state"]
    check_optimizer_state(state, where="c.pt")
    check_optimizer_state(None, where="c.pt")
    change(state)
    with pytest.raises(ValueError, match=f"c.pt.* {message}"):
        check_optimizer_state(state, where="c.pt")


def test_a_checkpoint_that_is_not_whole_is_named(kitchen, trained, tmp_path):
    content = torch.load(trained / "checkpoint_last.pt", weights_only=False)
    del content["extra_state"]
    torch.save(content, tmp_path / "given.pt")
    restored = f"checkpoint.restore_file={tmp_path / 'given.pt'}"
    done = run("mmpt", *words(kitchen, tmp_path / "run", restored), check=False)
    assert done.returncode == 2
    assert f"{tmp_path / 'given.pt'} can't be restored, it is not a whole checkpoint: KeyError" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_rate_falls_to_zero_where_training_ends(trained):
    """8 updates, warm-up to the peak of 2e-3 in the first: then 7 equal steps down to 0, the last of which is after
    the last update."""
    rates = {int(record["num_updates"]): float(record["lr"]) for record in log(trained)}
    assert rates[8] == pytest.approx(0, abs=1e-9)
    assert rates[7] == pytest.approx(2e-3 / 7, rel=1e-3)


def test_what_a_rank_says_of_wrong_data_is_one_line(kitchen, tmp_path):
    two = "distributed_training.distributed_world_size=2"
    done = run("mmpt", *words(kitchen, tmp_path, two, "model.feature_dim=7"), check=False)
    assert done.returncode == 2
    assert (
        "mmpt train: split 'train' has features of width 512, but the model expects features of width 7" in done.stderr
    )
    last = "mmpt_plugin.corpora.corpus.DataNotThere: no features at x"
    assert str(user_error(RuntimeError(f"-- Process 1 terminated\nTraceback\n{last}"))) == "no features at x"
    assert user_error(RuntimeError("Traceback\nKeyError: 'x'")) is None


def started(*command, **options):
    """A running `mmpt train`, its output in one pipe."""
    mmpt = Path(sys.executable).parent / "mmpt"
    return subprocess.Popen(
        [str(mmpt), *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True, **options,
    )  # fmt: skip


def wait_for_updates(process, folder, number):
    path, end = folder / "train.log", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and len(log(folder)) >= number:
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no {number} updates: {process.communicate()[0][-3000:]}")


@pytest.mark.parametrize(
    ("number", "whole_group", "overrides"),
    [
        (signal.SIGINT, True, ["dataset.num_workers=2"]),  # Ctrl-C reaches the loader's workers as well
        (signal.SIGTERM, False, ["distributed_training.distributed_world_size=2"]),
    ],
    ids=["ctrl-c", "sigterm-two-processes"],
)
def test_a_signal_saves_says_how_to_go_on_and_loses_nothing(kitchen, tmp_path, number, whole_group, overrides):
    """Ended within a long training; the next command resumes after the update of the checkpoint."""
    command = words(kitchen, tmp_path, *overrides, epochs=5000)
    process = started(*command)
    wait_for_updates(process, tmp_path, 3)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output[-3000:]
    assert f"mmpt train: stopped and saved in {tmp_path}; run the same command to resume" in output
    assert "Traceback" not in output
    reached = updates(tmp_path)
    assert reached >= 3
    last = log(tmp_path)[-1]
    assert int(last["num_updates"]) <= reached
    again = started(*command)
    wait_for_updates(again, tmp_path, len(log(tmp_path)) + 2)
    again.send_signal(signal.SIGTERM)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 130, output[-3000:]
    numbers = [int(record["num_updates"]) for record in log(tmp_path)]
    assert numbers == sorted(set(numbers))  # none twice: the checkpoint was that of the last update
    assert updates(tmp_path) > reached


def test_a_second_signal_ends_at_once():
    """Also if no update ends; two Ctrl-C within a second count as one."""
    code = (
        "import time\nfrom mmpt_plugin.fairseq_bridge.preemption import stops_on_signals\n"
        "with stops_on_signals():\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:  # it counts from when it heard the first
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_file_that_every_start_would_load_again_is_refused(kitchen, trained, tmp_path):
    """By a job always, since it may be requeued; by hand once there is something to lose."""
    project = {"checkpoint": {"save_dir": str(tmp_path), "restore_file": str(trained / "checkpoint_last.pt")}}
    with pytest.raises(ValueError, match="is loaded at every start.*use checkpoint.finetune_from_model"):
        check_restart(project, requeued=True)
    check_restart(project, requeued=False)
    (tmp_path / "checkpoint_last.pt").touch()
    with pytest.raises(ValueError, match="is loaded at every start"):
        check_restart(project, requeued=False)
    check_restart({"checkpoint": {"save_dir": str(tmp_path)}}, requeued=True)


def test_a_model_to_start_from_that_is_not_named_is_asked_for(kitchen, tmp_path):
    """`pretrained: ???` means that there is no sensible default: not that training starts from random weights."""
    words = ["mmpt", "train", "videoclip/finetune", f"checkpoint.save_dir={tmp_path}"]
    done = run(*words, "task=msrvtt", check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "mmpt train: project 'videoclip/finetune' needs model.pretrained=VALUE"
    done = run(*words, check=False)
    assert "needs task=NAME. Tasks with their own recipe: ['coin', 'crosstask'" in done.stderr
