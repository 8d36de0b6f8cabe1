"""The readers: a small file in each official format, and what is wrong in one, named with its record."""

import json
import pickle

import numpy as np
import pytest

from mmpt_plugin import registry
from mmpt_plugin.corpora.corpus import CorpusConfig
from mmpt_plugin.corpora.labelled_videos import words
from mmpt_plugin.corpora.readers import DataNotThere
from mmpt_plugin.video.store import find_videos


class Folder:
    """Annotations and features of a corpus of one's own making."""

    def __init__(self, root):
        self.root = root
        (root / "features").mkdir()

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else text(content).encode())
        return str(path)

    def features(self, *video_ids, seconds=10):
        for video_id in video_ids:
            np.save(self.root / "features" / f"{video_id}.npy", np.zeros((seconds, 4), np.float16))

    def open(self, name, annotations, **options):
        section = {"_name": name, "annotations": str(annotations), "features": str(self.root / "features")}
        return registry.corpora.build(section | {"tokenizer": "none"} | options)


def text(content):
    return content if isinstance(content, str) else json.dumps(content)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def clips(dataset):
    return [(clip.video_id, clip.start, clip.end, clip.caption) for clip in dataset.clips]


MSRVTT = {
    "videos": [{"video_id": "video1", "split": "train"}, {"video_id": "video2", "split": "test"}],
    "sentences": [{"video_id": f"video{n}", "caption": f"{word} {n}"} for n in (1, 2) for word in ("cut", "mix")],
}
COIN = {"subset": "testing", "annotation": [{"id": "1", "segment": [0.5, 3.0], "label": "cut"}]}
COIN["annotation"].append({"id": "2", "segment": [4.0, 6.5], "label": "mix"})
MOMENT = {"annotation_id": 0, "video": "a.mp4", "description": "cut", "times": [[0, 0], [0, 0], [1, 2], [5, 5]]}
YOUCOOK2 = {"subset": "validation", "annotations": [{"segment": [1, 4], "id": 0, "sentence": "cut"}]}


def test_msrvtt_csv_has_a_sentence_a_video(folder):
    folder.features("video7")
    path = folder.write("test.csv", 'key,vid_key,video_id,sentence\nret0,msr7,video7,"cut, and mix"\n')
    assert clips(folder.open("msrvtt", path)) == [("video7", 0.0, 10.0, "cut, and mix")]


def test_msrvtt_json_has_all_sentences_of_the_split_or_of_the_listed_videos(folder):
    folder.features("video1", "video2")
    path, listed = folder.write("data.json", MSRVTT), folder.write("full.csv", "key,video_id\nx,video1\n")
    assert [caption for *_, caption in clips(folder.open("msrvtt", path))] == ["cut 2", "mix 2"]
    assert [caption for *_, caption in clips(folder.open("msrvtt", path, video_ids=listed))] == ["cut 1", "mix 1"]


def test_youcook2_takes_a_subset(folder):
    folder.features("v")
    path = folder.write("y.json", {"database": {"v": YOUCOOK2, "w": YOUCOOK2 | {"subset": "training"}}})
    assert clips(folder.open("youcook2", path)) == [("v", 1.0, 4.0, "cut")]


def test_didemo_is_moments_or_one_paragraph_a_video(folder):
    """Features are found with and without the video's suffix in their name."""
    folder.features("a", "b.avi")
    records = [MOMENT, MOMENT | {"annotation_id": 1, "description": "mix"}]
    path = folder.write("test.json", [*records, MOMENT | {"annotation_id": 2, "video": "b.avi"}])
    assert clips(folder.open("didemo", path)) == [("a", 0.0, 10.0, "cut mix"), ("b", 0.0, 10.0, "cut")]
    moments = folder.open("didemo_moments", path).moments
    assert [moment.description for moment in moments] == ["cut", "mix", "cut"]
    assert moments[0].times == ((0, 0), (0, 0), (1, 2), (5, 5))


def didemo(folder, *names):
    """A description of each video: its number."""
    records = [MOMENT | {"annotation_id": i, "video": name, "description": str(i)} for i, name in enumerate(names)]
    return folder.write("test.json", records)


@pytest.mark.parametrize("features", ["x", "x.mov", "x.mp4"])
def test_didemo_knows_a_video_by_both_of_its_names(folder, features):
    """33 official test videos are listed under two; 31 names end in a dot."""
    folder.features(features, "y_2e.")
    path = didemo(folder, "x.mov", "y_2e.", "x.mp4")
    assert clips(folder.open("didemo", path)) == [("x", 0.0, 10.0, "0 2"), ("y_2e", 0.0, 10.0, "1")]
    dataset = folder.open("didemo_moments", path)
    assert [(moment.video_id, moment.description) for moment in dataset.moments] == [
        ("x", "0"), ("y_2e", "1"), ("x", "2")
    ]  # fmt: skip
    assert len(dataset.seconds("x")) == 10
    assert dataset.fingerprints == folder.open("didemo", path).fingerprints


@pytest.mark.parametrize("name", ["didemo", "didemo_moments"])
def test_didemo_takes_the_listed_videos(folder, name):
    folder.features("x", "y", "z")
    path = didemo(folder, "x.mov", "y.avi", "z.", "x.mp4")
    for listed in ("x\nz\n", "x.mov\nz.\n", "x.mp4\nx.mov\nz"):
        assert folder.open(name, path, video_ids=folder.write("list.txt", listed)).video_ids == ["x", "z"]
    with pytest.raises(ValueError, match=r"no descriptions of 1 videos of .*list.txt: \['w'\]"):
        folder.open(name, path, video_ids=folder.write("list.txt", "x\nw.avi\n"))


def test_msrvtt_lists_are_added_up_and_taken_away(folder):
    """As the original trains: the 7k list and the full test set without the 1k-A videos. Lists may overlap."""
    folder.features(*(f"video{i}" for i in range(5)))
    content = {"videos": [], "sentences": [{"video_id": f"video{i}", "caption": str(i)} for i in range(5)]}
    path = folder.write("data.json", content)
    lists = [
        folder.write(f"{name}.csv", "".join(f"{line}\n" for line in ("video_id", *videos)))
        for name, videos in (("7k", ["video0", "video1"]), ("full", ["video1", "video2", "video3"]), ("1k", ["video3"]))
    ]
    options = {"video_ids": lists[:2], "exclude": lists[2:]}
    assert folder.open("msrvtt", path, **options).video_ids == ["video0", "video1", "video2"]
    with pytest.raises(ValueError, match=r"full.csv:3: video 'video1' is repeated"):
        folder.open("msrvtt", path, video_ids=folder.write("full.csv", "video_id\nvideo1\nvideo1\n"))
    with pytest.raises(ValueError, match=r"data.json: no sentences for 1 videos, such as video9"):
        folder.open("msrvtt", path, video_ids=folder.write("full.csv", "video_id\nvideo1\nvideo9\n"))


def test_msrvtt_options_of_the_json_are_refused_for_a_csv(folder):
    path = folder.write("test.csv", "video_id,sentence\nvideo1,cut\n")
    for options in ({"video_ids": path}, {"exclude": [path]}, {"split": "validate"}):
        with pytest.raises(ValueError, match=r"are only for JSON annotations: all of .*test.csv is read"):
            folder.open("msrvtt", path, **options)
    with pytest.raises(ValueError, match=r"dataset.video_ids must be a csv file or a list of csv files, got \[\]"):
        folder.open("msrvtt", "x.json", video_ids=[])


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("msrvtt", MSRVTT, {"split": "valid"}, r"a.json: no split 'validate'. Possible: \['test', 'train'\]"),
        (
            "coin",
            {"database": {"v": COIN}},
            {"split": "valid"},
            "dataset.split must be one of train, test, got 'valid'",
        ),
        (
            "youcook2",
            {"database": {"v": YOUCOOK2}},
            {"split": "train"},
            "no subset 'training'. Possible: \\['validation'\\]",
        ),
        ("crosstask", {}, {"split": "testing"}, "dataset.split must be one of train, valid, test, got 'testing'"),
        ("hmdb51", {}, {"fold": 4}, "dataset.fold must be 1, 2 or 3, got 4"),
        ("ucf101", {}, {"fold": 0}, "dataset.fold must be 1, 2 or 3, got 0"),
    ],
)
def test_a_subset_that_does_not_exist_is_named(folder, name, content, options, message):
    folder.features("v")
    with pytest.raises(ValueError, match=message) as raised:
        folder.open(name, folder.write("a.json", content), **options)
    assert not isinstance(raised.value, DataNotThere)


def test_two_ids_never_share_a_feature_file(folder):
    """`v.1` is not `v` with a suffix."""
    folder.features("v")
    path = folder.write("a.csv", "video_id,label\nv,cut\nv.1,mix\n")
    with pytest.raises(ValueError, match=r"v.npy matches two videos, 'v' and 'v.1'"):
        folder.open("labelled_csv", path)


def test_lines_end_where_files_say(folder):
    """A caption may hold a line separator of Unicode's; files may come from Windows, with a byte-order mark."""
    folder.features("v")
    line = json.dumps({"video_id": "v", "start": 0, "end": 1, "caption": "cut\u2028mix"}, ensure_ascii=False)
    assert clips(folder.open("jsonl", folder.write("c.jsonl", line)))[0][3] == "cut\u2028mix"
    for content in ("video_id,sentence\r\nv,cut\r\n", "\ufeffvideo_id,sentence\nv , cut\n"):
        assert clips(folder.open("msrvtt", folder.write("t.csv", content))) == [("v", 0.0, 10.0, "cut")]


def test_msvd_takes_the_english_sentences_of_the_listed_clips(folder):
    folder.features("x_1_9")
    rows = ["VideoID,Start,End,WorkerID,Language,Description", "x,1,9,7,English,cut", "x,1,9,8,German,schneiden"]
    path = folder.write("corpus.csv", "\n".join([*rows, "x,1,9,9,English,chop", "y,1,9,9,English,mix"]))
    listed = folder.write("test.txt", "x_1_9\n")
    assert [caption for *_, caption in clips(folder.open("msvd", path, video_ids=listed))] == ["cut", "chop"]


def test_vatex_takes_all_english_captions(folder):
    folder.features("x_000001_000011")
    path = folder.write("v.json", [{"videoID": "x_000001_000011", "enCap": ["cut", "chop"], "chCap": ["切"]}])
    assert [caption for *_, caption in clips(folder.open("vatex", path))] == ["cut", "chop"]


def test_msvd_reads_the_words_of_the_papers_captions_too(folder):
    """raw-captions.pkl has every English sentence as words, in lower case without punctuation."""
    folder.features("x_1_9")
    content = {"x_1_9": [["a", "man", "cuts"], ["chop"]], "y_1_9": [["mix"]]}
    path, listed = folder.write("raw-captions.pkl", pickle.dumps(content)), folder.write("test.txt", "x_1_9\n")
    assert [caption for *_, caption in clips(folder.open("msvd", path, video_ids=listed))] == ["a man cuts", "chop"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "raw.pkl: expected a mapping of clip ids to lists of sentences"),
        ({"x_1_9": "cut"}, "raw.pkl: expected a mapping of clip ids to lists of sentences"),
        ({"x_1_9": [["cut"], "mix"]}, "raw.pkl: 'x_1_9', sentence 1: expected a list of words, got 'mix'"),
        ({"x_1_9": [["cut", 3]]}, r"raw.pkl: 'x_1_9', sentence 0: expected a list of words, got \['cut', 3\]"),
        ({"x_1_9": [[]]}, "raw.pkl: 'x_1_9': the caption of 'x_1_9' is empty"),
        ({"y_1_9": [["cut"]]}, "raw.pkl: no English sentences for 'x_1_9'"),
        ({"x_1_9": [np.zeros(2)]}, "raw.pkl is not a pickle of plain containers, strings and numbers"),
    ],
)
def test_captions_of_msvd_that_are_wrong_are_named(folder, content, message):
    folder.features("x_1_9")
    path, listed = folder.write("raw.pkl", pickle.dumps(content)), folder.write("test.txt", "x_1_9\n")
    with pytest.raises(ValueError, match=message) as raised:
        folder.open("msvd", path, video_ids=listed)
    assert "\n" not in str(raised.value)


def test_vatex_reads_the_listed_videos_but_those_of_other_lists(folder):
    """The random 1,500 share videos with the official validation list."""
    folder.features(*"abcd")
    path = folder.write("v.json", [{"videoID": video, "enCap": ["cut"]} for video in "abcd"])
    lists = [folder.write(f"{videos}.txt", "\n".join(videos)) for videos in ("bcd", "c", "dx")]
    assert folder.open("vatex", path, video_ids=lists[0]).video_ids == ["b", "c", "d"]
    assert folder.open("vatex", path, exclude=lists[1:]).video_ids == ["a", "b"]
    assert folder.open("vatex", path, video_ids=lists[0], exclude=lists[1:]).video_ids == ["b"]
    with pytest.raises(ValueError, match=r"c.txt:2: video 'c' is repeated"):
        folder.open("vatex", path, exclude=[folder.write("c.txt", "c\nc\n")])


def test_didemo_s_paragraphs_are_of_the_annotated_seconds(folder):
    """Annotators saw 30 seconds of a video; CLIP4Clip reads one more."""
    folder.features("x", seconds=40)
    folder.features("y", seconds=20)
    dataset = folder.open("didemo", didemo(folder, "x.mov", "y.avi"))
    assert [(video, start, end) for video, start, end, _ in clips(dataset)] == [("x", 0, 31), ("y", 0, 20)]
    assert [len(dataset.features(clip, max_video_len=64)) for clip in dataset.clips] == [31, 20]


AMERICAN_BEAUTY = "0001_American_Beauty_00.00.51.926-00.00.54.129"


def lsmdc(*rows):
    """Lines of clip id and sentence, with the times that the official files have in between."""
    times = "00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129"
    return "".join(f"{clip}\t{times}\t{sentence}\r\n" for clip, sentence in rows)


def test_lsmdc_has_a_sentence_a_line(folder):
    """Without a header; a clip may have several lines, and quotation marks are what they are."""
    folder.features(AMERICAN_BEAUTY, "b")
    rows = [(AMERICAN_BEAUTY, '"Hi," says SOMEONE.'), ("b", 'He reads "it'), (AMERICAN_BEAUTY, "SOMEONE waves.")]
    found = clips(folder.open("lsmdc", folder.write("l.csv", f"{lsmdc(*rows)}\r\n")))
    assert found == [(video, 0.0, 10.0, sentence) for video, sentence in rows]


def test_lsmdc_s_clips_are_files_below_their_movies(folder):
    """The dots of an id are no suffix."""
    other = AMERICAN_BEAUTY.replace("54.129", "54.130")
    for clip in (AMERICAN_BEAUTY, other):
        (folder.root / "videos" / "0001_American_Beauty").mkdir(parents=True, exist_ok=True)
        (folder.root / "videos" / "0001_American_Beauty" / f"{clip}.avi").touch()
    assert find_videos(folder.root / "videos").ids == (AMERICAN_BEAUTY, other)
    folder.features(AMERICAN_BEAUTY)
    path = folder.write("l.csv", lsmdc((AMERICAN_BEAUTY, "cut"), (other, "mix")))
    dataset = folder.open("lsmdc", path, allow_missing=True)
    assert (dataset.video_ids, dataset.missing_videos) == ([AMERICAN_BEAUTY], [other])


ACTIVITYNET = {
    "duration": 82.73,
    "timestamps": [[0.83, 19.86], [17.37, 60.81]],
    "sentences": [" He cuts. ", "He mixes."],
}


@pytest.mark.parametrize("name", ["v_QOlSCBRmfWY", "QOlSCBRmfWY"])
def test_activitynet_has_a_paragraph_a_video(folder, name):
    """Of the whole video, whose file may be named by either id."""
    folder.features(name)
    path = folder.write("val_1.json", {"v_QOlSCBRmfWY": ACTIVITYNET})
    dataset = folder.open("activitynet", path)
    assert clips(dataset) == [("v_QOlSCBRmfWY", 0.0, 10.0, "He cuts. He mixes.")]
    assert len(dataset.features(dataset.clips[0], max_video_len=64)) == 10


def test_activitynet_takes_the_listed_videos(folder):
    folder.features("v_v_b", "v_b", "a")
    videos = {"v_a": ACTIVITYNET, "v_b": ACTIVITYNET | {"sentences": ["", "Stir."]}, "v_v_b": ACTIVITYNET}
    path = folder.write("val_1.json", videos)
    assert folder.open("activitynet", path).video_ids == ["v_a", "v_b", "v_v_b"]
    for listed in (folder.write("ids.txt", "v_b\nv_a\n"), folder.write("val_ids.json", ["v_b", "v_a"])):
        found = clips(folder.open("activitynet", path, video_ids=listed))
        assert [(video, caption) for video, *_, caption in found] == [("v_b", "Stir."), ("v_a", "He cuts. He mixes.")]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ids.txt", "v_a\nv_a\n", "ids.txt:2: video 'v_a' is repeated, first at .*ids.txt:1"),
        ("ids.json", ["v_a", "v_a"], "ids.json, entry 1: video 'v_a' is repeated, first at .*ids.json, entry 0"),
        ("ids.json", ["v_a", 3], "ids.json, entry 1: a video id must be a string"),
        ("ids.json", {"v_a": 1}, "ids.json: expected a list of records, got dict"),
        ("ids.txt", "v_a\nv_c\n", r"a.json: no sentences of 1 videos of .*ids.txt: \['v_c'\]"),
    ],
)
def test_lists_of_activitynet_that_are_wrong_are_named(folder, file, content, message):
    folder.features("v_a")
    path = folder.write("a.json", {"v_a": ACTIVITYNET})
    with pytest.raises(ValueError, match=message):
        folder.open("activitynet", path, video_ids=folder.write(file, content))


@pytest.mark.parametrize(
    ("name", "files", "video", "label"),
    [
        ("labelled_csv", {"a.csv": "video_id,label\nv,brush_hair\n"}, "v", "brush hair"),
        ("hmdb51", {"s/brush_hair_test_split1.txt": "v.avi 2\nw.avi 1\nu.avi 0\n"}, "v.avi", "brush hair"),
        (
            "ucf101",
            {"s/testlist01.txt": "PlayingDaf/v.avi\n", "s/classInd.txt": "1 YoYo\n2 PlayingDaf\n"},
            "v.avi",
            "playing daf",
        ),
        (
            "kinetics",
            {"k.csv": "label,youtube_id,time_start,time_end,split\nyoga,v,3,13,val\n"},
            "v_000003_000013",
            "yoga",
        ),
    ],
)
def test_labelled_videos_by_their_official_files(folder, name, files, video, label):
    folder.features(video)
    paths = [folder.write(file, content) for file, content in files.items()]
    annotations = folder.root / "s" if "s/" in next(iter(files)) else paths[0]
    dataset = folder.open(name, annotations)
    assert [(found.video_id, dataset.labels[found.label]) for found in dataset.videos] == [(video, label)]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("hmdb51", {"s/brush_hair_test_split2.txt": "v.avi 2\nw.avi 1\nu.avi 0\n"}),
        (
            "ucf101",
            {"s/trainlist02.txt": "brush_hair/w.avi 1\n", "s/testlist02.txt": "brush_hair/v.avi\n"}
            | {"s/classInd.txt": "1 brush_hair\n"},
        ),
    ],
)
def test_labelled_videos_have_a_train_and_a_test_split_in_each_fold(folder, name, files):
    folder.features("v.avi", "w.avi")
    for file, content in files.items():
        folder.write(file, content)
    found = {split: folder.open(name, folder.root / "s", fold=2, split=split).video_ids for split in ("train", "test")}
    assert found == {"train": ["w.avi"], "test": ["v.avi"]}
    with pytest.raises(ValueError, match="dataset.split must be one of train, test, got 'valid'"):
        folder.open(name, folder.root / "s", split="valid")


@pytest.mark.parametrize("options", [{"split": "train"}, {"split": "training"}, {"subset": "training"}])
def test_a_split_has_one_name_and_the_annotations_own_words_work_too(folder, options):
    """`subset` was the key in version 0.1."""
    folder.features("v", "w")
    path = folder.write("y.json", {"database": {"v": YOUCOOK2, "w": YOUCOOK2 | {"subset": "training"}}})
    assert folder.open("youcook2", path, **options).video_ids == ["w"]


def test_labels_become_words():
    assert [words(name) for name in ("ApplyEyeMakeup", "brush_hair", "yoga")] == [
        "apply eye makeup",
        "brush hair",
        "yoga",
    ]


def coin(**changes):
    return {"database": {"v": COIN | changes}}


def step(number, start, end, label="cut"):
    return {"id": number, "segment": [start, end], "label": label}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("msrvtt", {"sentences": []}, "a.json: 'videos' is missing, there is only sentences"),
        ("msrvtt", MSRVTT | {"sentences": [{"video_id": "v"}]}, "a.json, sentence 0: 'caption' is missing"),
        ("msrvtt", MSRVTT | {"sentences": []}, "a.json: no sentences for 1 videos, such as video2"),
        ("msrvtt", b"\xff\xfe{", "a.json are not in UTF-8: invalid start byte at byte 0"),
        ("msrvtt", "{", "a.json: not valid JSON"),
        ("youcook2", {"database": {"v": YOUCOOK2 | {"annotations": [{"segment": [4, 1], "sentence": "x"}]}}},
         r"a.json: 'v', annotation 0: 0 <= start < end must hold, got 4 and 1"),
        ("youcook2", {"database": {"v": YOUCOOK2 | {"annotations": [{"segment": [12, 14], "sentence": "x"}]}}},
         r"a.json: 'v', annotation 0: a clip of 'v' starts at 12 s, but .*v.npy ends at 10 s"),
        ("didemo_moments", [MOMENT, MOMENT], "a.json, entry 1: annotation_id '0' is repeated, first at .*entry 0"),
        ("didemo_moments", [MOMENT | {"times": [[0, 6]]}], r"entry 0 \(annotation_id 0\): times must be pairs .* got"),
        ("msrvtt", MSRVTT | {"videos": ["video1"]}, "a.json, videos, entry 0: expected an object with 'video_id'"),
        ("didemo_moments", {"a": MOMENT}, "a.json: expected a list of records, got dict"),
        ("didemo_moments", [MOMENT | {"times": [[0]]}], r"entry 0 \(annotation_id 0\): times must be pairs .* got"),
        ("activitynet", [], "a.json: expected a mapping of video ids, got list"),
        ("activitynet", {"v": []}, "a.json: 'v': expected an object with 'sentences', got \\[\\]"),
        ("activitynet", {"v": ACTIVITYNET | {"sentences": "x"}}, "a.json: 'v': 'sentences' must be a list, got \"x\""),
        ("activitynet", {"v": ACTIVITYNET | {"sentences": ["x", 3]}}, "sentence 1: a sentence must be a string, got 3"),
        ("activitynet", {"v": ACTIVITYNET | {"sentences": []}}, "a.json: 'v': the caption of 'v' is empty"),
        ("activitynet", {"v": ACTIVITYNET | {"sentences": [" "]}}, "a.json: 'v': the caption of 'v' is empty"),
        ("activitynet", '{"v": {"sentences": ["x"]}, "v": {"sentences": ["y"]}}', "a.json: key 'v' is repeated"),
        ("activitynet", {}, "annotations .*a.json contain no clips or videos of this split"),
        ("vatex", 3, "a.json: expected a list of records, got int"),
        ("vatex", [{"videoID": "v", "enCap": [1]}], "a.json: 'v': a caption must be a string, got 1"),
        ("vatex", [{"videoID": "v", "enCap": []}], "a.json: no English captions for 'v'"),
        ("vatex", [{"videoID": "v", "enCap": ["x"]}, {"videoID": "gone", "enCap": ["x"]}],
         "a.json: 1 videos have no features in .*: gone .*allow_missing"),
        ("coin", coin(annotation=[step("0", 1, 2)]), "'v', annotation 0: id '0' is not a label id"),
        ("coin", coin(annotation=[step("1", 1, 2), step("3", 2, 3)]), r"numbered from 1 .* but \[2\] are"),
        ("coin", coin(annotation=[step("1", 1, 2), step("1", 2, 3, "mix")]), "1: label 1 is 'mix', but it is 'cut'"),
        ("coin", coin(annotation=[step("1", 2, 1)]), "'v', annotation 0: 0 <= start < end must hold"),
        ("coin", coin(annotation=[step("1", 1, 4), step("1", 3, 5)]), "a.json: 'v': Segment.* overlap .*allow_overlap"),
        ("coin", coin(annotation=[step("1", 11, 12)]), "a.json: 'v': Segment.* starts after the end .* at 10 s"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_json_is_named_with_its_record(folder, name, content, message):
    folder.features("v", "a")
    path = folder.write("a.json", content)
    with pytest.raises(ValueError, match=message) as raised:
        folder.open(name, path)
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, DataNotThere)


QA = "key\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("msrvtt", "video_id,sentence\nv,cut\nv,mix\n", "a.csv:3: video 'v' is repeated, first at .*a.csv:2"),
        ("msrvtt", "video_id,sentence\nv, \n", "a.csv:2: the caption of 'v' is empty"),
        ("msrvtt", "video_id,text\nv,cut\n", r"a.csv: no column \['sentence'\]. Columns: \['video_id', 'text'\]"),
        ("msrvtt_multiple_choice", f"{QA}mc0\tmsr1\ta\tb\tc\td\te\t5\n", "a.csv:2: answer must be 0 to 4, got '5'"),
        ("msrvtt_multiple_choice", f"{QA}mc0\tmsr1\ta\tb\n", "a.csv:2: too few cells, expected 7"),
        ("msrvtt", "video_id,sentence\nv,cut, and mix\n", "a.csv:2: more cells than columns"),
        (
            "msrvtt",
            f'video_id,sentence\nv,"cut{"x" * 140000}\n',
            "a.csv:.*: not valid CSV: field larger than field limit",
        ),
        ("lsmdc", lsmdc(("v", "cut"), ("v", " ")), "a.csv:2: the caption of 'v' is empty"),
        ("lsmdc", lsmdc(("", "cut")), "a.csv:1: the clip id is empty"),
        ("lsmdc", "v\t1\t2\t1\t2\n", r"a.csv:1: expected 6 cells separated by tabs \(clip id, .* sentence\), got 5"),
        ("lsmdc", "v\t1\t2\t1\t2\tcut\tmix\n", "a.csv:1: expected 6 cells separated by tabs .*, got 7"),
        ("lsmdc", "v,1,2,1,2,cut\n", "a.csv:1: expected 6 cells separated by tabs .*, got 1"),
        ("jsonl", '{"video_id": "v", "start": 0, "end": 1, "caption": " "}', "a.csv:1: the caption of 'v' is empty"),
        (
            "kinetics",
            "label,youtube_id,time_start,time_end\nyoga,v,a,b\n",
            "a.csv:2: time_start and time_end must be whole",
        ),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_line(folder, name, content, message):
    folder.features("v", "video1")
    with pytest.raises(ValueError, match=message):
        folder.open(name, folder.write("a.csv", content))


def crosstask(folder, step="1", times="1,3"):
    """Two videos of one task, of which one trains."""
    folder.write("r/tasks_primary.txt", "7\nTitle\nurl\n2\ncut,mix\n\n")
    folder.write("r/videos.csv", "7,a,url\n7,b,url\n")
    folder.write("r/videos_val.csv", "")
    for video in "ab":
        folder.write(f"r/annotations/7_{video}.csv", f"{step},{times}\n2,2,4\n")
    folder.features("a", "b")
    return folder.root / "r"


def test_crosstask_steps_may_overlap(folder):
    dataset = folder.open("crosstask", crosstask(folder), num_train=1)
    assert dataset.steps == {"7": ["cut", "mix"]}
    assert [video.segments for video in dataset.videos] == [((1.0, 3.0, 0), (2.0, 4.0, 1))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": "3"}, r"7_[ab].csv:1: step '3' is out of range: task 7 has steps 1 to 2"),
        ({"times": "3,1"}, r"7_[ab].csv:1: 0 <= start < end must hold"),
        ({"times": "11,12"}, r"7_[ab].csv: Segment.* starts after the end of the features, at 10 s"),
    ],
)
def test_crosstask_annotations_that_are_wrong_are_named(folder, row, message):
    with pytest.raises(ValueError, match=message):
        folder.open("crosstask", crosstask(folder, **row), num_train=1)


def test_crosstask_videos_without_annotations_are_missing(folder):
    path = crosstask(folder)
    (path / "annotations" / "7_b.csv").unlink()
    folder.write("r/videos.csv", "7,a,url\n7,b,url\n7,c,url\n")
    folder.write("r/annotations/7_c.csv", "1,1,3\n")
    folder.features("c")
    with pytest.raises(ValueError, match="1 videos have no annotations: b"):
        folder.open("crosstask", path, num_train=1)
    assert folder.open("crosstask", path, num_train=1, allow_missing=True).missing_videos == ["b"]


def two_tasks(folder):
    """Task 7 comes first by a validation video, its others after those of task 8; five of each may be drawn."""
    folder.write("r/tasks_primary.txt", "8\nTitle\nurl\n1\nboil\n\n7\nTitle\nurl\n1\ncut\n\n")
    drawn = {"7": [f"a{i}" for i in range(5)], "8": [f"b{i}" for i in range(5)]}
    rows = [("9", "other"), ("7", "held"), *(("8", v) for v in drawn["8"]), *(("7", v) for v in drawn["7"])]
    folder.write("r/videos.csv", "".join(f"{task},{video},url\n" for task, video in rows))
    folder.write("r/videos_val.csv", "9,other,url\n7,held,url\n")
    for task, video in rows[1:]:
        folder.write(f"r/annotations/{task}_{video}.csv", "1,1,3\n")
        folder.features(video)
    return folder.root / "r", drawn


def test_crosstask_draws_its_tasks_in_the_order_of_all_their_videos(folder):
    """Of validation videos too, as its authors do: task 7 is drawn first."""
    path, drawn = two_tasks(folder)
    rng = np.random.RandomState(0)
    expected = [(task, drawn[task][i]) for task in ("7", "8") for i in sorted(rng.choice(5, 3, replace=False))]
    trained, tested = (folder.open("crosstask", path, num_train=3, split=split) for split in ("train", "test"))
    assert [(video.group, video.video_id) for video in trained.videos] == expected
    assert len(tested.videos) == 4
    assert not set(trained.video_ids) & set(tested.video_ids)


def test_crosstask_validates_on_videos_that_are_not_drawn(folder):
    path, _ = two_tasks(folder)
    dataset = folder.open("crosstask", path, split="valid")
    assert [(video.group, video.video_id, video.segments) for video in dataset.videos] == [
        ("7", "held", ((1.0, 3.0, 0),))
    ]
    assert dataset.video_ids == ["held"]


CORPORA = [name for name in registry.corpora if issubclass(registry.corpora[name].config, CorpusConfig)]


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "dataset.features is missing"), ({"frames": {}}, "dataset.frames needs dataset.videos")],
)
def test_every_corpus_says_that_features_or_videos_are_missing(name, given, message):
    required = {"video_ids": "list.txt"} if name == "msvd" else {}
    with pytest.raises(ValueError, match=message) as raised:
        registry.corpora[name].parse({"annotations": "a", "tokenizer": "none"} | required | given)
    assert "\n" not in str(raised.value)


def test_a_clip_past_its_features_is_an_error_or_counted(folder):
    folder.features("v", "w")
    lines = [{"video_id": video, "start": start, "end": 30, "caption": "cut"} for video, start in (("v", 1), ("w", 10))]
    path = folder.write("c.jsonl", "\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"c.jsonl:2: a clip of 'w' starts at 10 s, but .*allow_missing: true to skip"):
        folder.open("jsonl", path)
    dataset = folder.open("jsonl", path, allow_missing=True)
    assert clips(dataset) == [("v", 1.0, 30.0, "cut")]
    assert (dataset.missing_clips, dataset.video_ids) == (1, ["v"])
    assert folder.open("jsonl", folder.write("d.jsonl", json.dumps(lines[0]))).missing_clips == 0
    with pytest.raises(ValueError, match="none of the clips starts within its video"):
        folder.open("jsonl", folder.write("d.jsonl", json.dumps(lines[1])), allow_missing=True)


def test_segments_past_the_features_are_counted(folder):
    folder.features("v")
    path = folder.write("a.json", coin(annotation=[step("1", 1, 2), step("1", 11, 12), step("1", 13, 14)]))
    assert folder.open("coin", path, allow_missing=True).missing_segments == 2
    path = crosstask(folder, times="11,12")
    assert folder.open("crosstask", path, num_train=1, allow_missing=True).missing_segments == 1


def test_coin_s_labels_are_those_of_the_testing_subset(folder):
    """Training lacks label 2, as it lacks 142 in the official file."""
    folder.features("v", "w", "x")
    training = {"subset": "training", "annotation": [step("1", 1, 2), step("3", 2, 3, "boil")]}
    testing = {"subset": "testing", "annotation": [*COIN["annotation"], step("3", 7, 8, "boil")]}
    path = folder.write("a.json", {"database": {"v": training, "w": testing}})
    dataset = folder.open("coin", path, split="train")
    assert dataset.labels == ["cut", "mix", "boil"]
    assert [segment.label for segment in dataset.videos[0].segments] == [1, 3]
    for wrong, message in (
        (step("4", 1, 2, "fry"), "'v', annotation 0: label 4, 'fry', is not in the testing subset"),
        (step("2", 1, 2, "fry"), "'v', annotation 0: label 2 is 'fry', but it is 'mix' in the testing subset"),
    ):
        path = folder.write("a.json", {"database": {"v": training | {"annotation": [wrong]}, "w": testing}})
        with pytest.raises(ValueError, match=message):
            folder.open("coin", path, split="train")


def test_features_that_are_no_numbers_are_named(folder):
    path = folder.write("a.csv", "video_id,label\nv,yoga\n")
    np.save(folder.root / "features" / "v.npy", np.full((3, 4), np.nan, np.float16))
    with pytest.raises(ValueError, match=r"v.npy contain NaN or infinity"):
        folder.open("labelled_csv", path).seconds("v")


def test_another_annotation_or_feature_is_another_fingerprint(folder):
    def prints(annotations, seconds):
        folder.features("v", seconds=seconds)
        return folder.open("labelled_csv", folder.write("a.csv", annotations)).fingerprints

    first = prints("video_id,label\nv,yoga\n", 3)
    other, longer = prints("video_id,label\nv,judo\n", 3), prints("video_id,label\nv,yoga\n", 4)
    assert first == prints("video_id,label\nv,yoga\n", 3)
    assert (first["annotations_sha256"] == longer["annotations_sha256"]) > (first == longer)
    assert (first["features_sha256"] == other["features_sha256"]) > (first == other)
