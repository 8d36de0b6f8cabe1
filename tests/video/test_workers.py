"""The progress bar of commands that read many videos; what they do is tested with each of them."""

from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.video import workers
from mmpt_plugin.video.write import write_video


@pytest.mark.parametrize(("probed", "named"), [(5, "0:10"), (2, "about 0:10")])
def test_the_seconds_of_very_many_videos_are_estimated_from_some(tmp_path, monkeypatch, probed, named):
    monkeypatch.setattr(workers, "PROBED", probed)
    read: list[Path] = []
    stated = workers.stated_seconds
    monkeypatch.setattr(workers, "stated_seconds", lambda path: read.append(path) or stated(path))
    write_video(tmp_path / "v.mp4", [np.zeros((16, 16, 3), np.uint8)] * 2, fps=1)
    bar = workers.SecondsProgress("extracting", [(str(n), tmp_path / "v.mp4") for n in range(5)], None)
    (task,) = bar.tasks
    assert (len(read), task.total, task.fields["all"]) == (probed, 10, named)


def test_times_say_how_long_each_waited():
    """Of 10 s, in two processes, decoding took 1 and encoding 7."""
    times = workers.Times(6.0, 0.5, 5.0) + workers.Times(4.0, 0.5, 2.0)
    assert str(times) == "encoding waited 30 % of the time for frames, decoding 90 % for encoding"
