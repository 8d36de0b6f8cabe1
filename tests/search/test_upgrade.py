"""A collection that version 1 of the settings wrote is read, searched and changed by this version.

`write` made tests/golden/collection_v1, in LanceDB 0.40; it is never made again, only others are added.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.search import Collection
from mmpt_plugin.search.stores.store import StoredVideo, Where, Windows, store_of

GOLDEN = Path(__file__).parents[1] / "golden" / "collection_v1"
SETTINGS = {
    "version": 1, "model": "model", "options": {"encoder": "{_name: s3d}"}, "weights": "0" * 64, "encoder": "0" * 64,
    "window": 6, "hop": 2,
}  # fmt: skip


def a_video(first, *, num_windows):
    """Windows whose vectors are (first, 0, 0, 0), (first, 1, 0, 0) and so on."""
    starts = np.arange(num_windows) * 2.0
    vectors = np.array([[first, number, 0, 0] for number in range(num_windows)], np.float32)
    about = StoredVideo("/disk/videos", 1000 + first, 1_700_000_000_123_456_789, f"{first:064}", 2.0 * num_windows + 4)
    return about, Windows(starts, starts + 6.0, vectors)


VIDEOS = {"videos/it's/1.mp4": a_video(1, num_windows=3), "videos/日本/2.mp4": a_video(2, num_windows=4)}


def write(folder: Path) -> None:
    """The golden collection."""
    store = store_of(str(folder))
    store.create(SETTINGS, width=4)
    for video, both in VIDEOS.items():
        store.replace({video: both})
    store.compact()


@pytest.fixture
def collection(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "copy")
    return Collection.open(tmp_path / "copy")


def test_a_collection_of_version_1_is_read(collection):
    assert collection.settings == SETTINGS
    assert collection.videos() == {video: about for video, (about, _) in VIDEOS.items()}
    for video, (_, windows) in VIDEOS.items():
        for name in ("starts", "ends", "vectors"):
            np.testing.assert_array_equal(getattr(collection.store.rows(video), name), getattr(windows, name))


def test_a_collection_of_version_1_is_searched(collection):
    """Worked by hand: (10, 1, 0, 0) with (2, 3, 0, 0) is 23, with (2, 2, 0, 0) 22."""
    hits = collection.store.nearest(np.array([10, 1, 0, 0], np.float32), 2, Where())
    assert [(hit.video, hit.start, hit.end, hit.score) for hit in hits] == [
        ("videos/日本/2.mp4", 6, 12, 23),
        ("videos/日本/2.mp4", 4, 10, 22),
    ]
    (hit, *_) = collection.store.nearest(np.array([10, 1, 0, 0], np.float32), 9, Where(("videos/it's/",)))
    assert str(hit.path) == "/disk/videos/it's/1.mp4"


def test_a_collection_of_version_1_is_changed(collection):
    collection.store.replace({"videos/it's/1.mp4": a_video(5, num_windows=1), "new/3.mp4": a_video(3, num_windows=2)})
    collection.store.remove(["videos/日本/2.mp4"])
    collection.store.compact()
    again = Collection.open(collection.url)
    assert list(again.videos()) == ["new/3.mp4", "videos/it's/1.mp4"]
    assert len(again.store.nearest(np.ones(4, np.float32), 99, Where())) == 3


def test_the_collection_names_no_folder_of_the_machine_that_wrote_it():
    files = [file for file in GOLDEN.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 100_000
    assert not [file for file in files if b"/golden/" in file.read_bytes() or b"collection_v1" in file.read_bytes()]
