"""Which id a file gets, and which files an index run finds: unusual names, folders of one name, nested folders."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.files import file_sha256
from mmpt_plugin.models import CLIPMean
from mmpt_plugin.models.clip import CLIPModelConfig
from mmpt_plugin.search import Collection
from mmpt_plugin.search import collection as module
from mmpt_plugin.search.stores.store import StoredVideo, Windows
from mmpt_plugin.search.video_files import prefix_of
from mmpt_plugin.video.workers import Failure
from tests.models.clip_family import TINY


def no_decoding(videos, work, build, num_workers, *, label):
    """Each file as one window; its size is the first number of the vector."""
    for _, path in videos:
        about = path.stat()
        vectors = np.zeros((1, 16), np.float32)
        vectors[0, 0] = about.st_size
        stored = StoredVideo("", about.st_size, about.st_mtime_ns, file_sha256(path), 4.0)
        empty = Failure(f"{path}: empty")
        yield path, ((stored, Windows(np.zeros(1), np.full(1, 4.0), vectors)) if about.st_size else empty)


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "outcomes", no_decoding)
    torch.manual_seed(0)
    CLIPMean(CLIPModelConfig(**TINY)).save_pretrained(tmp_path / "model")
    return Collection.create(tmp_path / "collection", model=tmp_path / "model")


def make(folder, *names):
    for number, name in enumerate(names, start=1):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (number + len(str(folder))))
    return folder


def test_a_name_that_is_not_utf8_is_reported_and_the_other_files_are_indexed(collection, tmp_path):
    folder = make(tmp_path / "videos", "good.mp4")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.mp4")).write_bytes(b"x")
    report = collection.index([folder])
    assert report.added == ["videos/good.mp4"]
    assert list(report.failed.values()) == [
        f"{folder}/bad\N{REPLACEMENT CHARACTER}.mp4: rename it, its name is not UTF-8"
    ]
    str(report).encode()


def test_line_breaks_and_quotes_in_names_are_kept(collection, tmp_path):
    folder = make(tmp_path / "videos", "it's/a\nb.mp4", 'say "hi" 100%_.mp4')
    assert len(collection.index([folder]).added) == 2
    assert {about.path(video) for video, about in collection.videos().items()} == set(folder.rglob("*.mp4"))
    assert collection.index([folder]).unchanged == 2


def test_two_folders_of_one_name_have_different_ids(collection, tmp_path):
    first, second = (make(tmp_path / place / "videos", "1.mp4") for place in ("a", "b"))
    assert collection.index([first]).added == ["videos/1.mp4"]
    assert collection.index([second]).added == ["videos-2/1.mp4"]
    assert collection.index([second, first]).unchanged == 2
    assert {about.path(video) for video, about in collection.videos().items()} == {first / "1.mp4", second / "1.mp4"}


def test_runs_that_choose_one_name_for_two_folders_at_once_do_not_mix_them(collection, tmp_path, monkeypatch):
    """The run that commits second stops with one line; when it is repeated, its folder has a name of its own."""
    first, second = make(tmp_path / "disk1/videos", "1.mp4"), make(tmp_path / "disk2/videos", "2.mp4")

    def overtaken(*arguments, **options):
        monkeypatch.setattr(module, "outcomes", no_decoding)
        Collection.open(collection.url).index([second])
        yield from no_decoding(*arguments, **options)

    monkeypatch.setattr(module, "outcomes", overtaken)
    with pytest.raises(ValueError, match=f"another run has meanwhile indexed {second} as 'videos'"):
        collection.index([first])
    assert list(collection.videos()) == ["videos/2.mp4"]
    assert collection.index([first]).added == ["videos-2/1.mp4"]
    assert collection.index([first, second]).unchanged == 2


@pytest.mark.parametrize("order", [("", "inner"), ("inner", "")])
def test_a_file_in_nested_folders_is_indexed_once(collection, tmp_path, order):
    folder = make(tmp_path / "outer", "1.mp4", "inner/2.mp4")
    reports = [collection.index([folder / part]) for part in order]
    assert sum(len(report.added) for report in reports) == 2
    assert {about.path(video) for video, about in collection.videos().items()} == set(folder.rglob("*.mp4"))


def test_a_renamed_file_keeps_its_windows(collection, tmp_path):
    folder = make(tmp_path / "videos", "1.mp4", "2.mp4")
    collection.index([folder])
    before = collection.store.rows("videos/1.mp4").vectors
    (folder / "1.mp4").rename(folder / "new.mp4")
    report = collection.index([folder])
    assert report.moved == {"videos/new.mp4": "videos/1.mp4"}
    assert not report.missing
    assert list(collection.videos()) == ["videos/2.mp4", "videos/new.mp4"]
    np.testing.assert_array_equal(collection.store.rows("videos/new.mp4").vectors, before)


def test_a_new_file_of_the_size_of_a_lost_one_is_another_video(collection, tmp_path):
    folder = make(tmp_path / "videos", "1.mp4", "2.mp4")
    collection.index([folder])
    size = (folder / "1.mp4").stat().st_size
    (folder / "1.mp4").unlink()
    (folder / "new.mp4").write_bytes(b"x" * size)
    report = collection.index([folder])
    assert (report.moved, report.added, report.missing) == ({}, ["videos/new.mp4"], ["videos/1.mp4"])


def test_twelve_moments_of_one_long_video_are_found_though_most_of_its_windows_overlap(collection):
    """Windows of 6 s every second, each a little better than the next: every sixth is a moment."""
    starts = np.arange(100.0)
    vectors = np.zeros((100, 16), np.float32)
    vectors[:, 0] = 1 - starts / 1000
    about = StoredVideo("/disk/videos", 1, 1, "c", 106.0)
    collection.store.replace({"videos/1.mp4": (about, Windows(starts, starts + 6, vectors))})
    collection.model.embed_text = lambda sentence: torch.eye(16)[:1]
    collection._check_sentence = lambda sentence: None
    assert [moment.start for moment in collection.search("chop", k=12)] == [6.0 * number for number in range(12)]


def test_a_file_with_an_earlier_time_is_indexed_again(collection, tmp_path):
    """As after a restored backup, or a clock that was set back: any other time is a change."""
    folder = make(tmp_path / "videos", "1.mp4")
    collection.index([folder])
    os.utime(folder / "1.mp4", ns=(0, 0))
    assert collection.index([folder]).changed == ["videos/1.mp4"]
    assert collection.index([folder]).unchanged == 1


@pytest.mark.parametrize(
    ("root", "folder", "expected"),
    [
        ("/disk", "2026", "disk/2026/"),
        ("/disk", "/disk/2026", "disk/2026/"),
        ("/disk", "/", "disk/"),
        ("/disk", "/disk/20", None),
        ("/", "/2026", "disk/2026/"),
        ("/", "/", "disk/"),
    ],
)
def test_a_folder_is_a_beginning_of_ids(root, folder, expected):
    about = StoredVideo(root, 1, 1, "c", 1.0)
    assert prefix_of("disk/2026/1.mp4", about, folder) == expected
