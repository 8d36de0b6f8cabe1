"""A run resumes from its newest intact checkpoint."""

import errno
import os

import pytest
import torch

pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq import checkpoint_utils

from mmpt_plugin.fairseq_bridge.preemption import repair_last_checkpoint
from mmpt_plugin.fairseq_bridge.saving import saves_atomically
from mmpt_plugin.files import WriteFailed

pytestmark = pytest.mark.fairseq


def write(path, number, *, age):
    """A checkpoint of `number` updates, as far as it is read here, of a file that is `age` seconds old."""
    history = [{"num_updates": number}]
    torch.save({"number": number, "optimizer_history": history, "weights": torch.arange(1000)}, path)
    os.utime(path, (1000 - age, 1000 - age))


def number(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["number"]


def test_a_whole_last_checkpoint_stays(tmp_path):
    write(tmp_path / "checkpoint_1_5.pt", 5, age=10)
    write(tmp_path / "checkpoint_last.pt", 6, age=1)
    assert repair_last_checkpoint(tmp_path) == tmp_path / "checkpoint_last.pt"
    assert number(tmp_path) == 6


def test_of_two_as_old_the_last_one_stays(tmp_path, caplog):
    for name in ("checkpoint2", "checkpoint_last", "checkpoint_2_40"):
        write(tmp_path / f"{name}.pt", 6 if name == "checkpoint_last" else 5, age=1)
    repair_last_checkpoint(tmp_path)
    assert number(tmp_path) == 6
    assert not caplog.text


@pytest.mark.parametrize("how", ["cut short", "empty", "a bit flipped"])
def test_a_damaged_one_is_set_aside_for_the_newest_whole_one(tmp_path, how):
    for i in (1, 2, 3):
        write(tmp_path / f"checkpoint_1_{i}.pt", i, age=10 - i)
    last = tmp_path / "checkpoint_last.pt"
    write(last, 4, age=1)
    content = bytearray(last.read_bytes())
    if how == "a bit flipped":
        content[len(content) // 2] ^= 1
    last.write_bytes({"cut short": content[:-100], "empty": b""}.get(how, content))
    repair_last_checkpoint(tmp_path)
    assert number(tmp_path) == 3
    assert (tmp_path / "checkpoint_last.damaged").exists()


def test_a_deliberate_step_back_is_kept(tmp_path):
    """Somebody has put an earlier checkpoint in the place of the last one."""
    write(tmp_path / "checkpoint_last.pt", 3, age=9)
    write(tmp_path / "checkpoint_2_40.pt", 40, age=2)
    repair_last_checkpoint(tmp_path)
    assert number(tmp_path) == 3


@pytest.mark.parametrize("last", [None, b"cut short"])
def test_the_most_updates_count_and_not_the_files_times(tmp_path, last):
    """In a folder that was copied without times the earliest file may be the youngest."""
    for updates, age in ((3000, 1), (5000, 9), (1000, 5)):
        write(tmp_path / f"checkpoint_1_{updates}.pt", updates, age=age)
    if last is not None:
        (tmp_path / "checkpoint_last.pt").write_bytes(last)
    repair_last_checkpoint(tmp_path)
    assert number(tmp_path) == 5000
    (tmp_path / "checkpoint_last.pt").write_bytes(b"")
    assert torch.load(tmp_path / "checkpoint_1_5000.pt", weights_only=True)["number"] == 5000, "a file of its own"


def test_no_damaged_file_replaces_another(tmp_path):
    for content in (b"one", b"two", b"three"):
        (tmp_path / "checkpoint_last.pt").write_bytes(content)
        assert repair_last_checkpoint(tmp_path) is None
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {
        "checkpoint_last.damaged": b"one", "checkpoint_last.damaged2": b"two", "checkpoint_last.damaged3": b"three"
    }  # fmt: skip


def test_nothing_whole_is_nothing(tmp_path):
    (tmp_path / "checkpoint_last.pt").write_bytes(b"PK")
    (tmp_path / "checkpoint_last.pt.tmp").write_bytes(b"half")
    (tmp_path / ".checkpoint_last.pt.abc.tmp").mkdir()
    assert repair_last_checkpoint(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.damaged"]


def test_a_damaged_checkpoint_never_takes_the_place_of_the_last_one(tmp_path):
    """One flipped bit in its weights: its number of updates can still be read."""
    path = tmp_path / "checkpoint_1_5.pt"
    write(path, 5, age=1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert repair_last_checkpoint(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1_5.damaged"]


def test_other_peoples_files_are_left_alone(tmp_path):
    write(tmp_path / "checkpoint_best_of_june.pt", 7, age=0)
    assert repair_last_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoint_best_of_june.pt").exists()


class FullOnce:
    """A part of a checkpoint whose first write meets a full disk."""

    failed = False

    def __reduce__(self):
        if not FullOnce.failed:
            FullOnce.failed = True
            raise OSError(errno.ENOSPC, "No space left on device")
        return str, ()


def test_a_save_that_fails_leaves_the_checkpoint_before_and_is_not_repeated_in_the_same_file(tmp_path):
    """fairseq would write it a second time behind the half that is there, and such a file can't be read."""
    path = tmp_path / "checkpoint_last.pt"
    write(path, 3, age=1)
    before = path.read_bytes()
    with saves_atomically(), pytest.raises(WriteFailed, match=r"checkpoint_last\.pt can't be written: no space left"):
        checkpoint_utils.torch_persistent_save({"weights": torch.zeros(10), "more": FullOnce()}, str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
