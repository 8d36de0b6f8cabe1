"""Profiles are checked before anything is submitted, with one line that says what is wrong."""

import pytest

from mmpt_plugin.config import available
from mmpt_plugin.launch import load_profile


def test_every_profile_there_is_can_be_asked_for():
    assert {"1gpu", "cpu", "h100x8x2", "local", "v100x8", "v100x8x4"} <= set(available("slurm"))
    for name in available("slurm"):
        load_profile(name)


def test_v100x8x4_is_32_tasks_on_nodes_of_volta():
    profile = load_profile("slurm/v100x8x4.yaml")
    assert (profile.nodes, profile.tasks, profile.constraint) == (4, 8, "volta32gb")
    assert profile.minutes == 72 * 60


def test_overrides_and_the_environment_say_where(monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "vision")
    monkeypatch.setenv("SBATCH_PARTITION", "week")
    profile = load_profile("v100x8", ["slurm.partition=day", "slurm.nodes=2"])
    assert (profile.account, profile.partition, profile.nodes) == ("vision", "day", 2)


def test_a_profile_of_ones_own_by_path(tmp_path):
    (tmp_path / "mine.yaml").write_text("gpus_per_node: 4\nsetup: [module load cuda]\n")
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert (profile.tasks, profile.setup) == (4, ["module load cuda"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slurm.node=2", "no key 'slurm.node'. Did you mean 'nodes'?"),
        ("slurm.nodes=0", "slurm.nodes must be at least 1, got 0"),
        ("slurm.nodes=many", "slurm.nodes: "),
        ("slurm.hours=0", "slurm.hours must be more than 0"),
        ("slurm.tasks_per_node=4", "slurm.tasks_per_node is 4 and slurm.gpus_per_node 8: a job has one task per GPU"),
        ("slurm.executor=pbs", "slurm.executor must be slurm or local, got 'pbs'"),
        ("slurm.executor=local", None),
        (
            "slurm.signal_seconds=300000",
            "slurm.signal_seconds must be less than the time limit of 259200 s, got 300000",
        ),
        ("slurm.compute_capability=volta", "slurm.compute_capability must look like \"7.0\", got 'volta'"),
        ("slurm.reservation=icml", "Any other option of sbatch belongs in slurm.extra"),
        ("slurm.mem_gb=60G", "slurm.mem_gb must be a number or none, got '60G'"),
        ("slurm.mem_gb=.nan", "slurm.mem_gb must be at least 0, got nan"),
        ("slurm.gres=gpu:a100:4", "slurm.gres is 'gpu:a100:4' and slurm.gpus_per_node 8: set one of them"),
        ("slurm.gpu_type=v100:8", "slurm.gpu_type must be one word such as a100"),
        ('slurm.partition="gpu\\n#SBATCH --nodes=99"', "slurm.partition must not contain line breaks or backslashes"),
        ('slurm.extra.comment="a\\nb"', "slurm.extra.comment must not contain line breaks or backslashes"),
        ("slurm.extra.comment='a\\b'", "slurm.extra.comment must not contain line breaks or backslashes"),
        ("slurm.extra.mem=4G", "slurm.extra.mem: set slurm.mem_gb instead"),
        ("slurm.extra.mem_per_cpu=4G", "slurm.extra.mem-per-cpu replaces --mem: set slurm.mem_gb=none with it"),
        ("slurm.extra.output=log", "slurm.extra.output can't be set: mmpt launch relies on its own"),
        ("slurm.extra.--hold=true", "slurm.extra.--hold: write the long name of an option without dashes"),
        ("slurm.extra.mail-type=[END,FAIL]", "slurm.extra.mail-type must be text, a number, true or false"),
        ("slurm.extra_srun.ntasks=3", "slurm.extra_srun.ntasks can't be set: mmpt launch relies on its own"),
        ('slurm.setup=["#SBATCH --nodes=3"]', "slurm.setup holds shell lines; set options of sbatch in slurm.extra"),
        ("slurm.python=''", "slurm.python: an empty command, got ''"),
        ("slurm.python='a \"b'", "slurm.python: No closing quotation"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_key(override, message):
    if message is None:
        load_profile("v100x8", [override])
        return
    with pytest.raises(ValueError) as error:
        load_profile("v100x8", [override])
    assert message in str(error.value)
    assert "v100x8.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(ValueError, match="no profile 'slurm/v100x9'. Did you mean 'v100x8'?"):
        load_profile("slurm/v100x9")


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu:4", 4), ("gpu:a100:4", 4), ("gpu", 1), ("gpu:a100", 1), ("nvme:1,gpu:a100:2,gpu:h100:2", 4), ("none", 0)],
)
def test_gres_says_how_many_gpus_there_are(gres, gpus):
    assert load_profile("cpu", [f"slurm.gres={gres}"]).gpus_per_node == gpus


def test_setup_may_be_a_block_of_lines(tmp_path):
    (tmp_path / "mine.yaml").write_text("setup: |\n  if true; then\n    module load cuda\n  fi\n")
    assert "".join(load_profile(str(tmp_path / "mine.yaml")).setup).count("\n") == 3
