"""What a benchmark is fine-tuned on: its splits inherit from its data set, and no validation has training videos."""

import csv
import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmpt_plugin import registry
from mmpt_plugin.config import available, load_project, plain
from mmpt_plugin.tasks import FineTuning, FineTuningTaskConfig, VideoTextPretraining, VideoTextPretrainingConfig
from mmpt_plugin.tasks.finetuning import fine_tuned

RUN = ["model.pretrained=x", "checkpoint.save_dir=runs/x"]


def project(task, *overrides):
    return plain(load_project("videoclip/finetune", [f"task={task}", *RUN, *overrides]))


@cache
def composed(task):
    return project(task)


def with_values(task, **values):
    """The fine-tuned project, in which `task.dataset` has these values."""
    made = deepcopy(composed(task))
    made["task"]["dataset"] |= values
    return fine_tuned(made)["task"]


FINE_TUNED = [
    *("msrvtt", "msrvtt_7k", "msrvtt_9k", "msrvtt_full", "msrvtt_qa", "msrvtt_qa_7k", "msvd", "vatex", "vatex_1k5"),
    *("didemo", "lsmdc", "activitynet", "youcook2", "coin", "crosstask"),
]


def test_the_tasks_that_can_be_fine_tuned():
    tasks = {
        name: load_project("videoclip/zeroshot", ["checkpoint=x", f"task={name}"]).task for name in available("tasks")
    }
    assert [name for name, task in tasks.items() if "finetune" in task] == sorted(FINE_TUNED)


@pytest.mark.parametrize("task", FINE_TUNED)
def test_an_override_reaches_every_split_that_does_not_say_it_itself(task):
    """All that `task.dataset` may say is overridden; what is for its splits is said by some of them themselves."""
    section = composed(task)["task"]
    own = dict(section["finetune"]["dataset"]["splits"])
    if "benchmark" in section["finetune"]:
        own["benchmark"] = section["finetune"]["benchmark"]["dataset"]
    corpus = section["dataset"]["_name"]
    keys = registry.corpora[corpus].config.__dataclass_fields__.keys()
    shared = keys & {"features", "videos", "frames", "tokenizer", "allow_missing"}
    made = with_values(task, **dict.fromkeys(keys, "probe"))
    parts = made["dataset"]["splits"] | {"benchmark": made["benchmark"]["dataset"]}
    for key in keys:
        heirs = {
            name for name, part in own.items()
            if key not in part and (key in shared or part.get("_name", corpus) == corpus)
        }  # fmt: skip
        if "benchmark" not in own and "valid" in heirs:
            heirs.add("benchmark")
        assert {name for name, part in parts.items() if part.get(key) == "probe"} == heirs, key


@pytest.mark.parametrize("task", FINE_TUNED)
def test_all_splits_have_the_features_of_the_benchmark(task):
    """Whatever a task is, this key is nobody's own."""
    made = with_values(task, features="elsewhere")
    for part in (*made["dataset"]["splits"].values(), made["benchmark"]["dataset"]):
        assert part["features"] == "elsewhere"
        registry.corpora[part["_name"]].parse(part)


def test_a_split_s_own_value_counts_and_a_null_unsets():
    override = "task.finetune.dataset.splits.train.annotations=mine.json"
    made = fine_tuned(project("coin", "task.dataset.annotations=all.json", override))["task"]["dataset"]["splits"]
    assert (made["train"]["annotations"], made["valid"]["annotations"]) == ("mine.json", "all.json")
    made = fine_tuned(project("vatex", "task.dataset.video_ids=test_list.txt"))["task"]["dataset"]["splits"]
    assert registry.corpora["vatex"].parse(made["train"]).video_ids is None


def test_another_corpus_inherits_what_all_corpora_share():
    splits = fine_tuned(project("msrvtt_qa", "task.dataset.allow_missing=true"))["task"]["dataset"]["splits"]
    assert splits["train"].items() >= {"_name": "msrvtt", "allow_missing": True, "split": "train"}.items()
    made = {"_name": "ucf101", "fold": 2, "annotations": "folder", "features": "f", "tokenizer": "t"}
    task = {"dataset": made, "finetune": {"dataset": {"splits": {"train": {"_name": "hmdb51"}}}}}
    assert fine_tuned({"task": task})["task"]["dataset"]["splits"]["train"] == {
        "_name": "hmdb51", "features": "f", "tokenizer": "t"
    }  # fmt: skip


def test_a_recipe_without_splits_is_an_error():
    with pytest.raises(ValueError, match=r"task.finetune.dataset.splits is missing"):
        fine_tuned({"task": {"finetune": {"metric": "t2v_recall@1"}}})
    with pytest.raises(ValueError, match="no key 'task.finetune.metrik'. Did you mean 'metric'?"):
        fine_tuned({"task": {"finetune": {"metrik": "t2v_recall@1"}}})


@pytest.fixture
def corpus(tmp_path):
    """Sections of a data set that is made of the named videos."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncut\n")
    (tmp_path / "features").mkdir()

    def section(*videos):
        for video in videos:
            np.save(tmp_path / "features" / f"{video}.npy", np.zeros((3, 4), np.float16))
        path = tmp_path / f"{''.join(videos)}.jsonl"
        path.write_text(
            "".join(json.dumps({"video_id": v, "start": 0, "end": 3, "caption": "cut"}) + "\n" for v in videos)
        )
        folders = {"features": str(tmp_path / "features"), "tokenizer": str(tmp_path / "tokenizer")}
        return {"_name": "jsonl", "annotations": str(path), **folders}

    return section


def finetuning(train, valid, benchmark=None):
    dataset = {"_name": "captioned_clips", "splits": {"train": train, "valid": valid}}
    measured = {"_name": "text_video_retrieval", "dataset": benchmark} if benchmark else {}
    return FineTuning(FineTuningTaskConfig(dataset=dataset, benchmark=measured))


@pytest.mark.parametrize("order", [("train", "valid"), ("valid", "train")])
def test_a_validation_split_with_training_videos_is_refused(corpus, order):
    """In whichever order fairseq asks for the splits."""
    task = finetuning(corpus("a", "b", "c"), corpus("c", "b", "d"))
    task.dataset(order[0])
    message = (
        r"split 'valid' has 2 of its 3 videos in common with split 'train', such as b, c: validate on other videos"
    )
    with pytest.raises(ValueError, match=message) as raised:
        task.dataset(order[1])
    assert "\n" not in str(raised.value)


def test_the_first_of_several_is_named():
    """Whatever the hashes of strings."""
    task = VideoTextPretraining(VideoTextPretrainingConfig())
    task.video_ids = {f"split '{number}'": ["a"] for number in range(9)}
    with pytest.raises(ValueError, match="split '0' has 1 of its 1 videos"):
        task.keep_apart("split 'train'", SimpleNamespace(video_ids=["a"]))


@pytest.mark.parametrize("order", [("train", "valid"), ("valid", "train")])
def test_a_validation_benchmark_with_training_videos_is_refused(corpus, order):
    task = finetuning(corpus("a", "b"), corpus("c"), benchmark=corpus("c", "a"))
    task.dataset(order[0])
    with pytest.raises(ValueError, match="the validation benchmark has 1 of its 2 videos in common .* such as a:"):
        task.dataset(order[1])


def test_validation_videos_may_be_shared_with_one_another(corpus):
    task = finetuning(corpus("a", "b"), corpus("c"), benchmark=corpus("c", "d"))
    assert [len(task.dataset(split)) for split in ("valid", "train", "valid")] == [1, 2, 1]


def test_shards_are_compared_and_what_tells_no_videos_is_not(kitchen, monkeypatch):
    splits = {"train": str(kitchen.shards), "valid": str(kitchen.shards)}
    task = VideoTextPretraining(VideoTextPretrainingConfig(dataset={"_name": "overlapped_clips", "splits": splits}))
    task.dataset("train")
    with pytest.raises(ValueError, match="split 'valid' has 12 of its 12 videos in common with split 'train'"):
        task.dataset("valid")

    class Anonymous(list):
        feature_dim, pad_id = 4, 0

    monkeypatch.setattr(registry.datasets, "build", lambda *_: Anonymous())
    task = VideoTextPretraining(VideoTextPretrainingConfig())
    assert [len(task.dataset(split)) for split in ("train", "valid")] == [0, 0]


def test_a_corpus_that_does_not_fit_is_named(corpus):
    """To train on, and to measure."""
    labelled = corpus("a") | {"_name": "labelled_csv"}
    (Path(labelled["annotations"])).write_text("video_id,label\na,cut\n")
    with pytest.raises(ValueError, match="corpus 'labelled_csv' has no clips, which are needed: set another"):
        finetuning(labelled, labelled).dataset("train")
    with pytest.raises(ValueError, match="corpus 'jsonl' has no labels, which are needed"):
        registry.tasks.build({"_name": "zero_shot_classification", "dataset": corpus("a")})


@pytest.fixture
def msrvtt(tmp_path):
    """The official files, a tenth of a hundredth their size: the 7k list is train and validate, the test set has two
    videos in 1k-A, one outside."""
    splits = {"train": 6, "validate": 1, "test": 3}
    videos = [(f"video{n}", split) for n, split in enumerate(s for s, count in splits.items() for _ in range(count))]
    content = {
        "videos": [{"video_id": video, "split": split} for video, split in videos],
        "sentences": [{"video_id": video, "caption": "cut"} for video, _ in videos],
    }
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(content))
    names = [video for video, _ in videos]
    for name, rows in (("train", names[:7]), ("FULL_test", names[7:]), ("JSFUSION_test", names[8:])):
        with (tmp_path / f"MSRVTT_{name}.csv").open("w") as file:
            csv.writer(file).writerows([("video_id", "sentence"), *((video, "cut") for video in rows)])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "train", "valid"),
    [
        ("msrvtt", range(6), [6]),
        ("msrvtt_7k", range(7), [8, 9]),
        ("msrvtt_9k", range(8), [8, 9]),
        ("msrvtt_full", range(6), [6]),
        ("msrvtt_qa", range(6), [6]),
        ("msrvtt_qa_7k", range(7), [8, 9]),
    ],
)
def test_msr_vtt_trains_and_validates_on_these_videos(corpus, msrvtt, name, train, valid):
    folders = corpus(*(f"video{number}" for number in range(10)))
    overrides = [f"task.dataset.{key}={folders[key]}" for key in ("features", "tokenizer")]
    section = fine_tuned(project(name, *overrides))["task"]
    section = json.loads(json.dumps(section).replace("data/msrvtt/MSRVTT", f"{msrvtt}/MSRVTT"))
    task = FineTuning(FineTuningTaskConfig(dataset=section["dataset"], benchmark=section["benchmark"]))
    found = {split: task.dataset(split).corpus.video_ids for split in ("valid", "train")}
    assert found == {split: [f"video{n}" for n in numbers] for split, numbers in (("valid", valid), ("train", train))}
    assert task.benchmark.dataset.video_ids == found["valid"]


@pytest.mark.parametrize(("name", "valid", "tested"), [("vatex", "cd", "ab"), ("vatex_1k5", "ad", "bc")])
def test_vatex_trains_and_validates_on_these_videos(corpus, tmp_path, name, valid, tested):
    """Of the validation file, a and b are HGR's test set, c and d its validation set; b and c are the random ones."""
    folders = corpus(*"abcdxy")
    for split, videos in (("training", "xy"), ("validation", "abcd")):
        records = [{"videoID": video, "enCap": ["cut"]} for video in videos]
        (tmp_path / f"vatex_{split}_v1.0.json").write_text(json.dumps(records))
    for file, videos in (("test_list", "ab"), ("val_list", "cd"), ("test1k5_sec_list", "bc")):
        (tmp_path / f"{file}.txt").write_text("\n".join(videos))
    section = project(name, *(f"task.dataset.{key}={folders[key]}" for key in ("features", "tokenizer")))
    section = json.loads(json.dumps(section).replace("data/vatex/", f"{tmp_path}/"))
    assert registry.corpora.build(section["task"]["dataset"]).video_ids == list(tested)
    made = fine_tuned(section)["task"]
    task = FineTuning(FineTuningTaskConfig(dataset=made["dataset"], benchmark=made["benchmark"]))
    assert {split: task.dataset(split).corpus.video_ids for split in ("train", "valid")} == {
        "train": ["x", "y"],
        "valid": list(valid),
    }


@pytest.mark.parametrize("task", ["didemo", "activitynet"])
def test_paragraphs_are_trained_on_64_tokens_and_64_frames(task):
    """As in CLIP4Clip: 62 word pieces, the start and the end, and as many frames of a clip as the model takes."""
    section = plain(load_project("clip_mean/finetune", [f"task={task}", "checkpoint.save_dir=runs/x"]))
    model, dataset = section["model"], fine_tuned(section)["task"]["dataset"]
    assert (model["max_text_len"], model["max_video_len"]) == (62, 64)
    assert dataset["max_video_len"] == dataset["splits"]["valid"]["frames"]["num_frames"] == 64


@pytest.mark.parametrize("task", ["vatex", "vatex_1k5"])
def test_clip2video_has_the_paper_s_centers_on_both_test_sets_of_vatex(task):
    section = plain(load_project("clip2video/finetune", [f"task={task}", "checkpoint.save_dir=runs/x"]))
    assert section["model"]["num_centers"] == 7
