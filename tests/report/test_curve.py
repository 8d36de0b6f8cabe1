"""The training curve, from logs as fairseq writes them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.report.curve import panels, read_log, write_curve

LOG = """\
{'_name': None, 'common': {'log_format': 'json'}}
begin training epoch 1
{"epoch": 1, "update": 0.333, "loss": "13.5", "v2t_recall@1": "0.01", "t2v_recall@1": "0.02", "num_updates": "5"}
2026-01-02 03:04:05 | INFO | train_inner | {"epoch": 1, "update": 0.667, "loss": "12.25", "num_updates": "10"}
{"epoch": 1, "train_loss": "12.4", "train_t2v_recall@1": "0.03", "train_num_updates": "15", "train_lr": "0.001"}
{"epoch": 1, "valid_loss": "11.5", "valid_t2v_recall@1": "0.04", "valid_num_updates": "15"}
done training in 288.6 seconds
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(LOG)
    return path


def test_intervals_and_validations_are_read_with_or_without_a_loggers_prefix(log):
    assert read_log(log) == {
        "train loss": {5: 13.5, 10: 12.25},
        "train t2v_recall@1": {5: 0.02},
        "train v2t_recall@1": {5: 0.01},
        "valid loss": {15: 11.5},
        "valid t2v_recall@1": {15: 0.04},
    }


def test_a_run_shorter_than_its_log_interval_shows_its_epochs(log):
    log.write_text("".join(line for line in LOG.splitlines(keepends=True) if '"train_loss"' in line))
    assert read_log(log) == {"train loss": {15: 12.4}, "train t2v_recall@1": {15: 0.03}}


def test_updates_that_a_resumed_run_repeats_count_once_and_late(log):
    log.write_text(LOG + '{"epoch": 1, "update": 0.333, "loss": "7.0", "num_updates": "5"}\n')
    assert read_log(log)["train loss"] == {5: 7.0, 10: 12.25}


def test_the_line_a_killed_run_was_writing_is_passed_over(log):
    log.write_text(LOG + '{"epoch": 2, "update": 1.333, "loss": "9.')
    assert read_log(log)["train loss"] == {5: 13.5, 10: 12.25}


def test_the_curve_is_a_picture_with_both_panels_drawn(log, tmp_path):
    write_curve(log, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    blue = (pixels == (31, 119, 180)).all(axis=2)  # matplotlib's first colour
    left, right = (int(half.sum()) for half in np.split(blue, 2, axis=1))
    assert left > 100
    assert right > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "train.log"]


@pytest.mark.parametrize("content", ["", "only words\n", '{"epoch": 1, "valid_loss": "3", "valid_num_updates": "5"}\n'])
def test_a_log_without_training_steps_is_refused_by_name(log, tmp_path, content):
    log.write_text(content)
    with pytest.raises(ValueError, match=r"train\.log has no training steps .*log_format=json"):
        write_curve(log, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_importing_the_reports_does_not_import_matplotlib():
    """`mmpt evaluate` prints a table, and must run where matplotlib is not installed."""
    code = "import sys, mmpt_plugin.report; sys.exit('matplotlib' in sys.modules)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_the_recall_of_a_benchmark_has_its_own_panel(log, tmp_path):
    """Its recall@1 has the name of the in-batch recall, which a validation without a benchmark has."""
    assert sorted(panels(read_log(log))["in-batch recall@1"]) == [
        "train t2v_recall@1",
        "train v2t_recall@1",
        "valid t2v_recall@1",
    ]
    assert len(panels(read_log(log))) == 2
    log.write_text(LOG.replace('"valid_num_updates"', '"valid_t2v_recall@10": "0.3", "valid_num_updates"'))
    drawn = panels(read_log(log))
    assert drawn["recall on held-out videos"] == {"valid t2v_recall@1": {15: 0.04}, "valid t2v_recall@10": {15: 0.3}}
    assert sorted(drawn["in-batch recall@1"]) == ["train t2v_recall@1", "train v2t_recall@1"]
    assert sorted(drawn["contrastive loss"]) == ["train loss", "valid loss"]
    write_curve(log, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width == 3 * 550


def test_chance_is_drawn_in_the_panel_of_what_it_is_compared_with(log):
    chance = '"chance_recall@1": "0.004", "loss": "13.5"'
    measured = '"valid_t2v_recall@5": "0.3", "valid_chance_t2v_recall@5": "0.02", "valid_num_updates"'
    log.write_text(LOG.replace('"loss": "13.5"', chance).replace('"valid_num_updates"', measured))
    drawn = panels(read_log(log))
    assert drawn["in-batch recall@1"]["train chance_recall@1"] == {5: 0.004}
    assert drawn["recall on held-out videos"]["valid chance_t2v_recall@5"] == {15: 0.02}
