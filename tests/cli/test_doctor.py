"""Which GPUs a torch build can use."""

import pytest

from mmpt_plugin.cli import main
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
