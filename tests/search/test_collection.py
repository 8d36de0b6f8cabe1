"""Collections: what is indexed, what a search returns, and what happens to files that change, move or go."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.cli import main
from mmpt_plugin.features.extract import encode
from mmpt_plugin.features.s3d import S3D
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.embedding import build_encoder
from mmpt_plugin.registry import models, register_store, stores
from mmpt_plugin.search import Collection, Moment, windows
from mmpt_plugin.search.moments import without_overlaps
from mmpt_plugin.search.stores.lance import LanceStore
from mmpt_plugin.search.stores.store import Hit, StoreConfig, store_of
from mmpt_plugin.tokenizer import load_tokenizer
from mmpt_plugin.video.sparse_frames import FramesConfig, read_clips
from mmpt_plugin.video.store import VideoFolder
from tests.conftest import TINY_ENCODER, TINY_MODEL
from tests.models.clip_family import SETTINGS, TINY

pytest.importorskip("lancedb")

SENTENCE = "chop the tomato on the board"


@pytest.fixture(scope="module")
def folder(kitchen, tmp_path_factory):
    """A model with random weights, its tokenizer and encoder, as save_pretrained writes it."""
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**TINY_MODEL))
    model.tokenizer, model.encoder = load_tokenizer(str(kitchen.root / "tokenizer")), TINY_ENCODER
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def indexed(kitchen, folder, tmp_path_factory):
    """A collection of three videos in two folders, to read only."""
    root = tmp_path_factory.mktemp("indexed")
    videos = library(kitchen, root)
    collection = Collection.create(root / "c", model=folder)
    collection.index([videos])
    return collection


def library(kitchen, root):
    """Videos/2025/IMG_0001.mp4, Videos/2026/IMG_0001.mp4 and Videos/2026/IMG_0002.mp4."""
    for number, name in enumerate(["2025/IMG_0001.mp4", "2026/IMG_0001.mp4", "2026/IMG_0002.mp4"]):
        path = root / "Videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kitchen.root / "videos" / f"toy_{number:04}.mp4", path)
    return root / "Videos"


@pytest.fixture
def fresh(kitchen, folder, tmp_path):
    """The same videos and an empty collection, to change."""
    return Collection.create(tmp_path / "c", model=folder), library(kitchen, tmp_path)


def everything(collection):
    """All windows: (video, start, end), and the matrix of their vectors."""
    rows = {video: collection.store.rows(video) for video in collection.videos()}
    spans = [
        (video, start, end) for video, own in rows.items() for start, end in zip(own.starts, own.ends, strict=True)
    ]
    return spans, np.concatenate([own.vectors for own in rows.values()])


def test_a_window_of_six_seconds_every_two_has_the_vector_of_its_rows(indexed):
    model, encoder = indexed.model, build_encoder(TINY_ENCODER)
    for video, about in indexed.videos().items():
        features = encode(about.path(video), encoder)
        own = indexed.store.rows(video)
        last = len(features) - 6
        assert own.starts.tolist() == [*range(0, last, 2), last]
        assert (own.ends - own.starts).tolist() == [6.0] * len(own.starts)
        for start, vector in zip(own.starts.astype(int), own.vectors, strict=True):
            rows = torch.from_numpy(features[start : start + 6])[None].float()
            expected = model.encode_video(rows, torch.ones(1, 6, dtype=torch.bool))[0]
            np.testing.assert_allclose(vector, expected.detach(), atol=1e-5)


def test_files_of_one_name_in_two_folders_are_two_videos(indexed):
    assert list(indexed.videos()) == [
        "Videos/2025/IMG_0001.mp4",
        "Videos/2026/IMG_0001.mp4",
        "Videos/2026/IMG_0002.mp4",
    ]


def test_a_search_ranks_by_dot_product_and_drops_windows_that_overlap_a_better_one(indexed):
    spans, vectors = everything(indexed)
    scores = vectors @ indexed.model.embed_text(SENTENCE)[0].numpy()
    expected: list[tuple[str, float, float]] = []
    for place in np.argsort(-scores, kind="stable"):
        video, start, end = spans[place]
        if all(video != v or end <= s or start >= e for v, s, e in expected):
            expected.append(spans[place])
    found = indexed.search(SENTENCE, k=1000)
    assert [(moment.video, moment.start, moment.end) for moment in found] == expected
    assert found[:4] == indexed.search(SENTENCE, k=4)
    assert found[0].score == pytest.approx(scores.max(), abs=1e-4)
    assert found[0].strength == pytest.approx((scores.max() - scores.mean()) / scores.std(), rel=1e-3)
    assert found[0].path.is_file()


def test_overlapping_hits_are_dropped_and_never_joined():
    hits = [Hit("Videos/a", "/r", *span) for span in ((4.0, 10.0, 0.9), (8.0, 14.0, 0.8), (10.0, 16.0, 0.7))]
    hits += [Hit("Videos/b", "/r", 4.0, 10.0, 0.6)]
    assert without_overlaps(hits, 3) == [hits[0], hits[2], hits[3]]
    assert without_overlaps(hits, 1) == hits[:1]


@pytest.mark.parametrize("name", ["2026", "2026/", "Videos/2026"])
def test_a_folder_limits_a_search(indexed, name):
    found = indexed.search(SENTENCE, k=100, folder=name)
    assert {moment.video for moment in found} == {"Videos/2026/IMG_0001.mp4", "Videos/2026/IMG_0002.mp4"}
    root = next(iter(indexed.videos().values())).root
    assert indexed.search(SENTENCE, k=100, folder=f"{root}/2026") == found


def test_the_length_of_the_video_limits_a_search(indexed):
    durations = {video: about.duration for video, about in indexed.videos().items()}
    longest = max(durations.values())
    found = indexed.search(SENTENCE, k=100, min_duration=longest)
    assert {moment.video for moment in found} == {video for video, own in durations.items() if own == longest}
    assert not indexed.search(SENTENCE, max_duration=1.0)


def test_a_similar_moment_is_not_the_moment_itself(indexed):
    moment = indexed.at(next(iter(indexed.videos().values())).path("Videos/2025/IMG_0001.mp4"), 7.5)
    assert (moment.start, moment.end) == (4.0, 10.0)
    spans, vectors = everything(indexed)
    scores = vectors @ vectors[spans.index((moment.video, 4.0, 10.0))]
    apart = [
        place for place, (video, start, end) in enumerate(spans) if video != moment.video or end <= 4 or start >= 10
    ]
    best = spans[max(apart, key=lambda place: scores[place])]
    found = indexed.similar(moment, k=3)
    assert (found[0].video, found[0].start, found[0].end) == best


def test_a_moment_is_classified_by_prompts(indexed):
    moment = indexed.search(SENTENCE, k=1)[0]
    labels = indexed.classify(moment, {"cutting": ["chop it", "cut it into slices"], "heating": "fry it in a pan"})
    vector = indexed.store.rows(moment.video).vectors[int(moment.start) // 2]
    heating = float(indexed.model.embed_text("fry it in a pan")[0].numpy() @ vector)
    assert labels["heating"] == pytest.approx(heating, abs=1e-4)
    assert list(labels) == sorted(labels, key=labels.get, reverse=True)


def test_indexing_again_reads_nothing_and_changes_nothing(fresh, monkeypatch):
    collection, videos = fresh
    report = collection.index([videos])
    assert (len(report.added), report.unchanged, report.failed) == (3, 0, {})
    monkeypatch.setattr(windows.WindowWork, "__call__", None)
    assert str(collection.index([videos])) == "3 unchanged"


def test_a_changed_file_is_indexed_again(fresh, kitchen):
    collection, videos = fresh
    collection.index([videos])
    before = collection.store.rows("Videos/2025/IMG_0001.mp4").vectors
    shutil.copy(kitchen.root / "videos" / "toy_0005.mp4", videos / "2025" / "IMG_0001.mp4")
    report = collection.index([videos])
    assert (report.changed, report.unchanged) == (["Videos/2025/IMG_0001.mp4"], 2)
    after = collection.store.rows("Videos/2025/IMG_0001.mp4").vectors
    assert before.shape != after.shape or not np.allclose(before, after)


def test_a_renamed_file_is_recognized_by_its_content_and_not_decoded(fresh, monkeypatch):
    collection, videos = fresh
    collection.index([videos])
    before = collection.store.rows("Videos/2025/IMG_0001.mp4")
    (videos / "2024").mkdir()
    (videos / "2025" / "IMG_0001.mp4").rename(videos / "2024" / "birthday.mp4")
    monkeypatch.setattr(windows.WindowWork, "__call__", None)
    report = collection.index([videos])
    assert report.moved == {"Videos/2024/birthday.mp4": "Videos/2025/IMG_0001.mp4"}
    assert not report.missing
    np.testing.assert_array_equal(collection.store.rows("Videos/2024/birthday.mp4").vectors, before.vectors)
    assert "Videos/2025/IMG_0001.mp4" not in collection.videos()
    assert collection.index([videos]).unchanged == 3


def test_a_library_that_moved_as_a_whole_is_not_decoded_again(fresh, monkeypatch, tmp_path):
    collection, videos = fresh
    collection.index([videos])
    (tmp_path / "disk").mkdir()
    videos.rename(tmp_path / "disk" / "Videos")
    monkeypatch.setattr(windows.WindowWork, "__call__", None)
    report = collection.index([tmp_path / "disk" / "Videos"])
    assert (len(report.moved), report.added, report.failed) == (3, [], {})
    assert all(moment.path.is_file() for moment in collection.search(SENTENCE))


def test_a_missing_file_stays_unless_it_is_to_be_removed(fresh):
    collection, videos = fresh
    collection.index([videos])
    (videos / "2025" / "IMG_0001.mp4").unlink()
    report = collection.index([videos])
    assert report.missing == ["Videos/2025/IMG_0001.mp4"]
    assert "missing: Videos/2025/IMG_0001.mp4" in str(report)
    assert len(collection.videos()) == 3
    report = collection.index([videos], remove_missing=True)
    assert (report.removed, report.missing) == (["Videos/2025/IMG_0001.mp4"], [])
    assert len(collection.videos()) == 2


def test_the_rows_of_a_file_that_moved_are_not_kept_twice_if_a_run_was_killed_meanwhile(fresh, monkeypatch):
    collection, videos = fresh
    collection.index([videos])
    (videos / "2025" / "IMG_0001.mp4").rename(videos / "2025" / "birthday.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(collection.store, "remove", lambda videos: None)
        collection.index([videos])
    assert len(collection.videos()) == 4
    report = collection.index([videos])
    assert (report.removed, report.missing) == (["Videos/2025/IMG_0001.mp4"], [])
    assert len(collection.videos()) == 3


def test_nothing_is_removed_if_no_video_is_there(fresh):
    """Such as on a disk that is not mounted."""
    collection, videos = fresh
    collection.index([videos])
    shutil.rmtree(videos)
    videos.mkdir()
    with pytest.raises(ValueError, match="no videos in .*Videos: nothing is removed, in case a disk is not mounted"):
        collection.index([videos], remove_missing=True)
    assert len(collection.videos()) == 3
    assert len(collection.index([videos]).missing) == 3


def test_indexing_some_files_leaves_the_others(fresh):
    collection, videos = fresh
    collection.index([videos])
    (videos / "2025" / "IMG_0001.mp4").unlink()
    report = collection.index([videos / "2026"], remove_missing=True)
    assert (report.unchanged, report.removed, report.missing) == (2, [], [])
    assert len(collection.videos()) == 3


def test_a_file_that_cannot_be_read_is_reported_and_tried_again(fresh, kitchen):
    collection, videos = fresh
    broken = videos / "2025" / "IMG_0009.mp4"
    broken.write_text("no video")
    report = collection.index([videos])
    assert list(report.failed) == [str(broken)]
    assert len(report.added) == 3
    shutil.copy(kitchen.root / "videos" / "toy_0004.mp4", broken)
    assert collection.index([videos]).added == ["Videos/2025/IMG_0009.mp4"]


def test_links_out_of_a_folder_are_not_followed(fresh, kitchen):
    collection, videos = fresh
    (videos / "elsewhere").symlink_to(kitchen.root / "videos")
    report = collection.index([videos])
    assert len(report.added) == 3
    assert len(report.left_out) == 18
    assert "is a link out of" in next(iter(report.left_out.values()))


def test_a_file_that_no_longer_has_the_size_it_had_when_it_was_read_is_read_again(fresh, monkeypatch):
    """It was copied meanwhile: the record holds the size and time from before reading."""
    collection, videos = fresh
    path = videos / "2025" / "IMG_0001.mp4"
    real = windows.encode

    def growing(file, *rest, **options):
        rows = real(file, *rest, **options)
        if file == path:
            os.utime(path, ns=(1, 1))
        return rows

    monkeypatch.setattr(windows, "encode", growing)
    collection.index([videos])
    monkeypatch.undo()
    assert collection.index([videos]).changed == ["Videos/2025/IMG_0001.mp4"]


def test_several_processes_store_what_one_stores(fresh, indexed):
    collection, videos = fresh
    assert len(collection.index([videos], num_workers=2).added) == 3
    for video in indexed.videos():
        np.testing.assert_allclose(collection.store.rows(video).vectors, indexed.store.rows(video).vectors, atol=2e-3)


@pytest.mark.parametrize("name", ["clip_mean", "clip_lstm", "clip_transformer", "clip2video", "videoclip_vit"])
def test_models_of_frames_read_their_own_frames_of_each_window(name, kitchen, tmp_path):
    torch.manual_seed(0)
    model = models[name].build(TINY | SETTINGS.get(name, {})).eval()
    path = kitchen.root / "videos" / "toy_0000.mp4"
    _, own = windows.work_of(model, 6, 2)("Videos/toy_0000.mp4", path)
    spans = list(zip(own.starts.tolist(), own.ends.tolist(), strict=True))
    assert spans[:2] == [(0.0, 6.0), (2.0, 8.0)]
    config = FramesConfig(num_frames=8, size=8)
    clips = read_clips(VideoFolder(path.parent), "toy_0000", spans, config)
    np.testing.assert_allclose(own.vectors, model.embed_frames(clips).detach().numpy(), atol=1e-5)


def test_a_collection_is_opened_with_the_model_that_made_it(fresh, folder, tmp_path):
    collection, videos = fresh
    collection.index([videos])
    again = Collection.open(tmp_path / "c")
    assert again.search(SENTENCE) == collection.search(SENTENCE)
    assert again.settings["window"] == 6


def test_a_collection_can_be_opened_from_any_folder(kitchen, folder, tmp_path, monkeypatch):
    """Its model, tokenizer and encoder were given by relative paths."""
    shutil.copytree(folder, tmp_path / "m")
    shutil.copytree(kitchen.root / "tokenizer", tmp_path / "t")
    torch.manual_seed(0)
    torch.save(S3D().state_dict(), tmp_path / "s3d.pth")
    monkeypatch.chdir(tmp_path)
    encoder = TINY_ENCODER | {"weights": "s3d.pth"}
    Collection.create("c", model="m", tokenizer=Path("t"), encoder=encoder).index([library(kitchen, tmp_path)])
    Collection.open("c").check_model("m", tokenizer="t", encoder=encoder)
    monkeypatch.chdir("/")
    again = Collection.open(tmp_path / "c")
    assert again.search(SENTENCE)
    torch.save(S3D().state_dict(), tmp_path / "s3d.pth")
    with pytest.raises(ValueError, match="and .*/m has another encoder: create another collection"):
        again.check_model(tmp_path / "m", encoder=encoder | {"weights": str(tmp_path / "s3d.pth")})
    (tmp_path / "Videos" / "2025" / "IMG_0001.mp4").touch()
    with pytest.raises(ValueError, match="the encoder of .* has changed since it was created"):
        again.index([tmp_path / "Videos"])


def test_another_model_is_refused(fresh, folder, tmp_path):
    collection, _ = fresh
    other = tmp_path / "other"
    model = VideoCLIP.from_pretrained(folder)
    model.text_encoder.embeddings.word_embeddings.weight.data[7] += 1
    model.save_pretrained(other)
    with pytest.raises(ValueError, match="was created with .*, and .*other has other weights"):
        collection.check_model(other)
    collection.check_model(folder)
    shutil.rmtree(tmp_path / "moved", ignore_errors=True)
    with pytest.raises(ValueError, match="has other weights than when"):
        _ = Collection(collection.store, "c", collection.settings | {"model": str(other)}).model


def test_what_a_search_needs_is_said(indexed):
    with pytest.raises(ValueError, match="the sentence is empty"):
        indexed.search("  ")
    with pytest.raises(ValueError, match="knows none of the words in '料理'"):
        indexed.search("料理")
    with pytest.raises(ValueError, match="has half of a surrogate pair"):
        indexed.search("a byte that is not UTF-8: \udcff")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        indexed.search(SENTENCE, k=0)
    with pytest.raises(ValueError, match="has no videos in folder '2031'"):
        indexed.search(SENTENCE, folder="2031")
    with pytest.raises(ValueError, match="is not in"):
        indexed.at("gone.mp4", 3.0)
    with pytest.raises(ValueError, match="has no second 999"):
        indexed.at("Videos/2025/IMG_0001.mp4", 999.0)
    with pytest.raises(ValueError, match="has no moment of Videos/x.mp4 that starts at 2 s"):
        indexed.similar(Moment("Videos/x.mp4", indexed.at("Videos/2025/IMG_0001.mp4", 3.0).path, 2.0, 8.0, 0.0, 0.0))


def test_a_sentence_of_ten_thousand_words_is_cut_and_said(indexed, caplog):
    assert indexed.search("tomato " * 10_000, k=1)
    assert "the sentence has 10002 tokens, of which the model reads 63" in caplog.text


def test_what_a_collection_needs_is_said(kitchen, folder, tmp_path):
    with pytest.raises(ValueError, match="hop must be 1 to 4"):
        Collection.create(tmp_path / "c", model=folder, window=4, hop=5)
    with pytest.raises(ValueError, match="window 33 is longer than the model's max_video_len, 32 s"):
        Collection.create(tmp_path / "c", model=folder, window=33)
    with pytest.raises(ValueError, match="is not a collection: create one with mmpt index"):
        Collection.open(tmp_path / "c")
    (tmp_path / "empty").mkdir()
    collection = Collection.create(tmp_path / "c", model=folder)
    with pytest.raises(ValueError, match="is a collection already"):
        Collection.create(tmp_path / "c", model=folder)
    with pytest.raises(ValueError, match="no videos in .*empty"):
        collection.index([tmp_path / "empty"])
    with pytest.raises(ValueError, match="no video or folder at .*gone"):
        collection.index([tmp_path / "gone"])
    assert collection.search(SENTENCE) == []


def mmpt(*words):
    return main([str(word) for word in words])


def test_from_files_to_moments_on_the_command_line(kitchen, folder, tmp_path, capsys):
    videos, at = library(kitchen, tmp_path), tmp_path / "c"
    assert mmpt("index", videos, "--model", folder, "--collection", at, "--window", 4, "--hop", 4) == 0
    assert capsys.readouterr().out == (
        f'3 added, 0 unchanged\nsearch:  mmpt search {at} "a sentence"\npage:    mmpt serve {at}\n'
    )
    assert mmpt("search", at, SENTENCE, "-k", 2, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in shown] == [str(moment.path) for moment in Collection.open(at).search(SENTENCE, k=2)]
    assert all(one["end"] - one["start"] == 4 for one in shown)
    assert mmpt("search", at, SENTENCE, "-k", 1) == 0
    start = f"0:{int(shown[0]['start']):02}-0:{int(shown[0]['end']):02}  "
    assert capsys.readouterr().out.startswith(start)
    assert mmpt("search", at, "--like", f"{videos}/2026/IMG_0001.mp4@5.5", "--folder", "2025", "--json") == 0
    assert {one["video"] for one in json.loads(capsys.readouterr().out)} == {"Videos/2025/IMG_0001.mp4"}


def test_a_video_that_fails_is_the_exit_status_and_the_others_are_found(kitchen, folder, tmp_path, capsys):
    videos, at = library(kitchen, tmp_path), tmp_path / "c"
    (videos / "broken.mp4").write_text("no video")
    assert mmpt("index", videos, "--model", folder, "--collection", at) == 2
    assert f"failed: {videos}/broken.mp4 can't be decoded" in capsys.readouterr().out
    assert mmpt("search", at, SENTENCE) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "{videos}", "--collection", "{new}"], "there is no collection at .*: create it with --model MODEL"),
        (["index", "{videos}", "--collection", "{videos}", "--model", "{model}"], "is a folder with other files"),
        (["index", "{videos}", "--collection", "{videos}/2025/IMG_0001.mp4", "--model", "{model}"], "is a file, not a"),
        (["index", "{videos}", "--collection", "{c}", "--window", "8"], "has --window 6, which never changes"),
        (["search", "{new}", SENTENCE], "is not a collection: create one with mmpt index"),
        (["search", "{c}"], "expected either a sentence or --like"),
        (["search", "{c}", SENTENCE, "--like", "a.mp4@3"], "expected either a sentence or --like"),
        (["search", "{c}", "--like", "a.mp4"], "--like must be FILE@SECONDS, such as trip.mp4@12.5, got 'a.mp4'"),
        (["search", "{c}", "--like", "a.mp4@x"], "--like must be FILE@SECONDS"),
        (["search", "{c}", "--like", "a.mp4@3"], "a.mp4 is not in .*: add it with mmpt index"),
    ],
)
def test_wrong_commands_are_one_line(words, message, indexed, folder, kitchen, tmp_path, capsys):
    places = {"videos": library(kitchen, tmp_path), "new": tmp_path / "n", "model": folder, "c": indexed.url}
    assert mmpt(*(word.format(**places) for word in words)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("mmpt ")
    assert error.count("\n") == 1


def test_a_registered_store_is_chosen_by_its_name_in_the_url(monkeypatch, tmp_path):
    monkeypatch.setattr(stores, "_entries", dict(stores._entries))

    @register_store("drawer", dataclass=StoreConfig)
    class Drawer(LanceStore):
        def __init__(self, config):
            self.url = config.url

    assert isinstance(store_of("drawer+top"), Drawer)
    assert store_of("drawer+top").url == "drawer+top"
    folder = tmp_path / "a+b"
    assert store_of(str(folder)).url == str(folder)
