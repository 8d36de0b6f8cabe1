"""Timelines of long videos, seen in the page's own SVG."""

import re

import numpy as np
import pytest

from mmpt_plugin.corpora.segments import Segment, labels_to_segments
from mmpt_plugin.report import has_timelines, write_timelines
from tests.tasks.golden import released, task

RESULT = {
    "task": "action_segmentation",
    "metrics": {"frame_accuracy": 0.5},
    "chance": {"frame_accuracy": 0.1},
    "examples": [
        {
            "video_id": "a<b",
            "seconds": 82,
            "segments": {"predicted": [(0, 41, "chop")], "true": [(41, 82, "stir & fry"), (0, 1, "chop")]},
        }
    ],
}


def test_segments_stand_where_they_are_in_the_video(tmp_path):
    """820 units wide from 80 on, so 10 a second."""
    write_timelines(tmp_path / "new" / "t.html", RESULT)
    page = (tmp_path / "new" / "t.html").read_text()
    boxes = re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"[^>]*fill="([^"]+)"><title>(.*?)</title>', page)
    places = [(float(x), int(y), float(width), title) for x, y, width, _, title in boxes]
    assert places == [
        (80, 0, 410, "chop, 0 to 41 s"),
        (490, 30, 410, "stir &amp; fry, 41 to 82 s"),
        (80, 30, 10, "chop, 0 to 1 s"),
    ]
    assert boxes[0][3] == boxes[2][3] != boxes[1][3]  # a colour a label
    assert "a&lt;b, 1:22" in page
    marks = re.findall(r'<text x="([\d.]+)" y="74">(.*?)</text>', page)
    assert [(float(x), time) for x, time in marks] == [(80 + 100 * n, f"{n // 6}:{n % 6}0") for n in range(9)]
    assert "50.0 %" in page


def test_a_label_has_the_same_color_in_all_videos(tmp_path):
    one, two = ({"video_id": name, "seconds": 9} for name in "ab")
    one["segments"] = {"true": [(0, 3, "chop"), (3, 6, "fry")]}
    two["segments"] = {"true": [(0, 3, "boil"), (3, 6, "fry"), (6, 9, "chop")]}
    write_timelines(tmp_path / "t.html", RESULT | {"examples": [one, two]})
    colors = re.findall(r'fill="([^"]+)"><title>(\w+)', (tmp_path / "t.html").read_text())
    assert len(set(colors)) == 3
    assert len({color for color, _ in colors}) == 3


def test_labels_a_second_become_segments():
    labels = np.array([0, 1, 1, 2, 0, 0, 3])
    assert labels_to_segments(labels) == [Segment(1.0, 3.0, 1), Segment(3.0, 4.0, 2), Segment(6.0, 7.0, 3)]
    assert labels_to_segments(np.zeros(4, dtype=np.int64)) == []


@pytest.mark.parametrize(
    ("name", "corpus", "annotations", "options"),
    [
        ("action_segmentation", "coin", "coin/COIN.json", {"allow_missing": True, "allow_overlap": True}),
        ("step_localization", "crosstask", "crosstask/crosstask_release", {"num_train": 3}),
    ],
)
def test_results_of_long_videos_have_timelines(tmp_path, name, corpus, annotations, options):
    result = {"task": name, **task(name, corpus, annotations, options={"examples": 2}, **options).evaluate(released())}
    assert has_timelines(result)
    assert len(result["examples"]) == 2
    assert result["examples"][0]["segments"]["true"]
    write_timelines(tmp_path / "t.html", result)
    assert (tmp_path / "t.html").read_text().count("<svg") == 2


def test_other_results_have_none(tmp_path):
    with pytest.raises(ValueError, match="'text_video_retrieval' has no segments to show"):
        write_timelines(tmp_path / "t.html", {"task": "text_video_retrieval", "examples": [{"text": "x"}]})
