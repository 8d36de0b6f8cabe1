"""Weight files: written atomically, and readable by other users."""

import os
import stat

import pytest
import torch

from mmpt_plugin.checkpoint import write_folder
from mmpt_plugin.files import atomic_write


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_files_have_the_permissions_of_the_umask(tmp_path, umask, mode):
    """safetensors creates files that only their owner can read."""
    before = os.umask(umask)
    try:
        write_folder(tmp_path, {}, {"weight": torch.zeros(1)})
    finally:
        os.umask(before)
    for name in ("model.safetensors", "config.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
