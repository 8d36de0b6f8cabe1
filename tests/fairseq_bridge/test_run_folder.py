"""Which changed settings are rejected for a run's folder, and when a run is finished; without training."""

import pytest
import torch
import yaml

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from mmpt_plugin.config import flat  # noqa: E402
from mmpt_plugin.fairseq_bridge.run_folder import check_settings, differences, finished, write_project  # noqa: E402


def test_settings_are_flat_without_those_that_are_not_set():
    nested = {"task": {"_name": "x", "dataset": {"seed": 0, "path": None}}, "empty": {}, "off": False}
    assert flat(nested) == {"task._name": "x", "task.dataset.seed": 0, "off": False}


def test_differences_are_those_of_either_side_but_for_bookkeeping():
    before = {"optimization.lr": 1, "model.old": 2, "common.log_interval": 3, "common.seed": 4}
    now = {"optimization.lr": 5, "model.new": 6, "common.log_interval": 7, "common.seed": 4}
    assert list(differences(before, now)) == [
        "model.new is 6, was None",
        "model.old is None, was 2",
        "optimization.lr is 5, was 1",
    ]


def test_settings_are_checked_only_where_there_are_checkpoints(tmp_path):
    project = {"checkpoint": {"save_dir": str(tmp_path)}, "model": {"size": 1}}
    changed = project | {"model": {"size": 2}}
    check_settings(changed)
    write_project(project)
    assert yaml.safe_load((tmp_path / "project.yaml").read_text()) == project
    check_settings(changed)
    (tmp_path / "checkpoint_last.pt").touch()
    check_settings(project)
    with pytest.raises(ValueError, match="contains a run with other settings: model.size is 2, was 1"):
        check_settings(changed)


def test_settings_of_the_version_before_are_compared_under_their_new_names(tmp_path):
    sampler = {"_name": "retrieval_augmented", "videos_per_batch": 16, "clusters_from": 32}
    before = {"checkpoint": {"save_dir": str(tmp_path)}, "sampler": sampler, "setting": "zero_shot"}
    write_project(before)
    (tmp_path / "checkpoint_last.pt").touch()
    now = before | {"sampler": {"_name": "retrieval_augmented", "cluster_size": 16, "num_neighbors": 32}}
    check_settings(now)
    now["sampler"] |= {"num_neighbors": 64}
    with pytest.raises(ValueError, match="sampler.num_neighbors is 64, was 32"):
        check_settings(now)


@pytest.mark.parametrize(
    ("max_epoch", "max_update", "expected"),
    [
        (13, 0, "13 epochs, 195 updates"),
        (14, 0, None),
        (0, 195, "13 epochs, 195 updates"),
        (0, 196, None),
        (14, 100, "13 epochs, 195 updates"),
        (0, 0, None),
    ],
)
def test_a_run_is_finished_after_its_last_epoch_or_update(tmp_path, max_epoch, max_update, expected):
    """Its checkpoint names the epoch that comes next, 14."""
    assert finished(tmp_path, max_epoch=max_epoch, max_update=max_update) is None
    state = {"extra_state": {"train_iterator": {"epoch": 14}}, "optimizer_history": [{"num_updates": 195}]}
    torch.save(state, tmp_path / "checkpoint_last.pt")
    assert finished(tmp_path, max_epoch=max_epoch, max_update=max_update) == expected
