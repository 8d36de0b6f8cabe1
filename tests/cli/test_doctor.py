"""Which GPUs a torch build can use."""

import pytest

from mmpt_plugin.cli import main
from mmpt_plugin.criterions import NCEConfig
from mmpt_plugin.hardware import gpu_problem, has_avx2
from mmpt_plugin.search.stores.store import store_of

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU128 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((7, 0), CU126, True),
        ((7, 0), CU128, False),
        ((7, 5), CU128, True),
        ((8, 9), CU128, True),  # sm_86 runs there
        ((9, 0), CU126, True),
        ((10, 0), CU126, False),
        ((12, 1), CU128, True),
        ((13, 0), CU128, True),  # from compute_120, compiled on first use
    ],
)
def test_a_gpu_runs_what_was_built_for_its_major_version(capability, built_for, runs):
    assert (gpu_problem(capability, built_for) is None) is runs


def test_a_v100_is_told_which_build_it_wants():
    assert gpu_problem((7, 0), CU128) == (
        "is sm_70, this torch is built for sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120: "
        "install a torch built for CUDA 12.6, the last to support it"
    )


def test_a_v100_is_not_asked_for_bf16():
    assert "has no bf16" in gpu_problem((7, 0), CU126, bf16=True)
    assert gpu_problem((8, 0), CU126, bf16=True) is None


@pytest.mark.parametrize(
    ("machine", "flags", "has"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 bmi2\n", True),
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx512\n", False),
        ("x86_64", "model name\t: unknown\n", True),
        ("aarch64", "flags\t\t: fp asimd\n", True),
    ],
)
def test_a_processor_without_avx2_is_named_before_lancedb_dies_of_it(
    machine, flags, has, tmp_path, monkeypatch, capsys
):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}")
    monkeypatch.setattr("mmpt_plugin.hardware.CPU_FLAGS", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_avx2() == has
    main(["doctor"])
    assert ("no AVX2" in capsys.readouterr().out) != has
    if not has:
        with pytest.raises(ValueError, match="needs a processor with AVX2"):
            store_of(str(tmp_path / "c"))


@pytest.fixture
def project(kitchen, tmp_path):
    """A project on the small kitchen, and the overrides that point it there."""
    return ["videoclip/small", f"task.dataset.splits={{train: {kitchen.shards}}}", "dataset.disable_validation=true",
            "sampler.cluster_size=4", "optimization.max_epoch=5", f"checkpoint.save_dir={tmp_path}/run"]  # fmt: skip


def test_a_project_that_can_be_trained_is_described(project, capsys):
    pytest.importorskip("fairseq")
    assert main(["doctor", *project]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok  train: 12 videos" in lines
    assert "ok  15 updates: epochs 5, clusters of videos in an epoch 3, processes 1" in lines
    assert lines[-2].startswith("ok  estimate of the memory of each GPU: 0.")
    assert lines[-1].startswith("ok  estimate of the time: 1 min on")
    assert all(line.startswith("ok  ") for line in lines)


def test_what_would_stop_a_training_is_listed_and_the_status_says_so(project, capsys):
    pytest.importorskip("fairseq")
    wrong = ["model.pretrained=/nowhere", "sampler.cluster_size=99", "criterion.tau=3"]
    assert main(["doctor", *project, *wrong]) == 2
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("--")] == [
        "--  model.pretrained: there is no file or folder /nowhere",
        "--  train: sampler.cluster_size is 99, but the split has only 12 videos",
        f"--  no key 'nce.tau'. Possible: {sorted(vars(NCEConfig()))}",
    ]


def test_a_key_that_fairseq_would_refuse_is_listed(project, capsys):
    pytest.importorskip("fairseq")
    assert main(["doctor", *project, "optimization.lrr=3"]) == 2
    assert "--  no key 'optimization.lrr'. Did you mean 'lr'?" in capsys.readouterr().out


def test_an_evaluation_is_left_to_mmpt_evaluate(capsys):
    assert main(["doctor", "videoclip/zeroshot", "checkpoint=x"]) == 2
    assert "mmpt evaluate says what is missing" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["model", "criterion", "task"])
@pytest.mark.parametrize("command", ["train", "doctor"])
def test_a_training_without_a_section_is_one_line(command, missing, tmp_path, capsys):
    pytest.importorskip("fairseq")
    sections = {"model": "{_name: videoclip}", "criterion": "{_name: nce}", "task": "{_name: video_text_pretraining}"}
    lines = [f"{name}: {value}" for name, value in sections.items() if name != missing]
    (tmp_path / "mine.yaml").write_text(
        "\n".join(["# @package _global_", "defaults: [/projects/base@_global_, _self_]", *lines,
                   f"checkpoint: {{save_dir: {tmp_path}/run}}"])
    )  # fmt: skip
    assert main([command, str(tmp_path / "mine.yaml")]) == 2
    printed = capsys.readouterr()
    assert f"the {missing} section has no _name" in printed.out + printed.err
