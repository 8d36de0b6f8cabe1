"""All benchmarks of a project, those whose data is not there listed; the task YAMLs; the command."""

import json
import shutil
import textwrap

import numpy as np
import pytest
import yaml

from mmpt_plugin import registry
from mmpt_plugin.cli import main
from mmpt_plugin.config import available, load_project, plain
from mmpt_plugin.metrics.retrieval import retrieval_chance
from mmpt_plugin.models import load_model
from mmpt_plugin.registry import models
from mmpt_plugin.tasks.benchmark import Benchmark
from mmpt_plugin.tasks.evaluate import evaluate, evaluate_all, with_frames
from tests.conftest import ROOT
from tests.models.clip_family import TINY
from tests.tasks.golden import ENDTASK, released


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    released().save_pretrained(folder)
    return folder


def project(name, checkpoint, **dataset):
    section = plain(load_project("videoclip/zeroshot", [f"task={name}", f"checkpoint={checkpoint}"]))
    section["task"]["dataset"] |= dataset
    return section


def local(corpus, annotations):
    return {
        "annotations": str(ENDTASK / corpus / annotations),
        "features": str(ENDTASK / corpus / "features"),
        "tokenizer": str(ENDTASK / "tokenizer"),
    }


def test_benchmarks_that_are_there_are_measured_and_the_others_listed(checkpoint, tmp_path):
    """An annotation file without features is not there either."""
    absent = str(tmp_path / "absent")
    result = evaluate_all(
        {
            "msrvtt": project("msrvtt", checkpoint, **local("msrvtt", "MSRVTT_JSFUSION_test.csv")),
            "msrvtt_qa": project("msrvtt_qa", checkpoint, **local("msrvtt", "MSR_MC_test.csv")),
            "coin": project("coin", checkpoint, **local("coin", "COIN.json") | {"allow_missing": True}),
            "youcook2": project("youcook2", checkpoint, annotations=absent),
            "didemo": project("didemo", checkpoint, **local("didemo", "test_data.json") | {"features": absent}),
        }
    )
    assert list(result["benchmarks"]) == ["msrvtt", "msrvtt_qa", "coin"]
    assert result["not_there"]["youcook2"]["missing"] == f"no annotations at {absent}"
    assert "youcook2.eecs.umich.edu" in result["not_there"]["youcook2"]["source"]
    assert result["not_there"]["didemo"]["missing"] == f"no features at {absent}"
    coin = result["benchmarks"]["coin"]
    assert coin["published"] == {"frame_accuracy": 0.589}
    assert coin["missing_videos"] == 1
    assert coin["constant_background"].keys() == coin["metrics"].keys() == coin["untrained"].keys()
    assert {len(value) for value in coin["data"].values()} == {64}
    assert result["benchmarks"]["msrvtt"]["data"] != result["benchmarks"]["msrvtt_qa"]["data"]
    json.dumps(result)


def test_wrong_data_and_a_model_that_does_not_fit_are_found_before_anything_is_measured(checkpoint, monkeypatch):
    """A missing video is not a missing benchmark. All that is wrong is named at once."""
    measured = []
    monkeypatch.setattr("mmpt_plugin.tasks.evaluate.measure", lambda *all: measured.append(all))
    wide = project("crosstask", checkpoint, **local("crosstask", "crosstask_release"), num_train=3)
    wide["task"]["window"] = 64
    wanted = {
        "msrvtt": project("msrvtt", checkpoint, **local("msrvtt", "MSRVTT_JSFUSION_test.csv")),
        "coin": project("coin", checkpoint, **local("coin", "COIN.json")),
        "crosstask": wide,
    }
    with pytest.raises(ValueError, match=r"coin: .*1 videos have no features in .*: coin1") as raised:
        evaluate_all(wanted)
    assert "crosstask: task.window is 64 s, but model.max_video_len is 32 s" in str(raised.value)
    assert "benchmarks=[msrvtt]" in str(raised.value)
    assert measured == []


def test_one_that_fails_on_the_way_costs_no_other(checkpoint, tmp_path):
    """A feature file that holds NaN is only found when it is read; what is measured is handed on at once."""
    features = tmp_path / "features"
    shutil.copytree(ENDTASK / "msrvtt" / "features", features)
    damaged = sorted(features.glob("*.npy"))[-1]
    np.save(damaged, np.full_like(np.load(damaged), np.nan))
    projects = {
        "msrvtt": project("msrvtt", checkpoint, **local("msrvtt", "MSRVTT_JSFUSION_test.csv")),
        "msrvtt_qa": project("msrvtt_qa", checkpoint, **local("msrvtt", "MSR_MC_test.csv")),
    }
    projects["msrvtt"]["task"]["dataset"]["features"] = str(features)
    kept = []
    result = evaluate_all(projects, keep=lambda outcome: kept.append(json.dumps(outcome)))
    assert list(result["benchmarks"]) == ["msrvtt_qa"]
    assert result["failed"] == {"msrvtt": f"features {damaged} contain NaN or infinity"}
    assert len(kept) == 2
    assert json.loads(kept[-1])["benchmarks"].keys() == {"msrvtt_qa"}


def test_the_command_prints_ours_beside_the_papers_and_lists_what_is_not_there(checkpoint, tmp_path, capsys):
    own = tmp_path / "own.yaml"
    own.write_text(
        "# @package _global_\ndefaults: [/projects/videoclip/zeroshot@_global_, _self_]\n"
        "benchmarks: [msrvtt, crosstask]\n"
    )
    found = [f"task.dataset.{key}={value}" for key, value in local("msrvtt", "MSRVTT_JSFUSION_test.csv").items()]
    out = tmp_path / "all.json"
    assert main(["evaluate", str(own), f"checkpoint={checkpoint}", *found, "task=msrvtt", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "10.4 %" in shown
    assert "(MSR-VTT 1k-A)" in shown
    assert json.loads(out.read_text())["published"]["t2v_recall@1"] == 0.104
    assert json.loads(out.read_text())["test_set"] == "MSR-VTT 1k-A"
    assert main(["evaluate", str(own), f"checkpoint={checkpoint}", "--json", str(out)]) == 0
    assert list(json.loads(out.read_text())["not_there"]) == ["msrvtt", "crosstask"]
    assert "not on this machine" in capsys.readouterr().out


def test_published_numbers_belong_to_a_protocol(checkpoint):
    """CLIP2Video's numbers on 1k-A are of training on 9,000 videos; nothing is shown next to another training."""
    files = [f"task.dataset.{key}={value}" for key, value in local("msrvtt", "MSRVTT_JSFUSION_test.csv").items()]
    found = {}
    for name in ("msrvtt", "msrvtt_7k", "msrvtt_9k"):
        words = [f"task={name}", f"checkpoint={checkpoint}", "task.dataset.frames=null", *files]
        found[name] = evaluate(plain(load_project("clip2video/evaluate", words)))
    assert {result["test_set"] for result in found.values()} == {"MSR-VTT 1k-A"}
    assert [name for name, result in found.items() if "published" in result] == ["msrvtt_9k"]
    published = found["msrvtt_9k"]["published"]
    assert published["t2v_recall@1"] == 0.456
    assert published.keys() == found["msrvtt_9k"]["metrics"].keys()


def test_every_task_yaml_is_complete():
    """Every key is known, published numbers bear the metrics' names, and each benchmark says where it comes from."""
    benchmarks = plain(load_project("videoclip/zeroshot", ["checkpoint=x"]))["benchmarks"]
    assert set(benchmarks) <= set(available("tasks"))
    keys = {"accuracy", "frame_accuracy", "average_recall", "rank@1", "rank@5"} | retrieval_chance(2).keys()
    measured = [
        plain(load_project("videoclip/zeroshot", ["checkpoint=x", f"task={n}"]).task.dataset) for n in benchmarks
    ]
    for name in available("tasks"):
        task = plain(load_project("videoclip/zeroshot", ["checkpoint=x", f"task={name}"]))["task"]
        config = registry.tasks[task["_name"]].parse(task)
        kind = registry.corpora if issubclass(registry.tasks[task["_name"]].cls, Benchmark) else registry.datasets
        kind[task["dataset"]["_name"]].parse(task["dataset"])
        if issubclass(registry.tasks[task["_name"]].cls, Benchmark):
            assert name in benchmarks or task["dataset"] in measured  # or only trained on other data
            assert config.source
            assert config.test_set or name.startswith("toy_kitchen")
            for protocol, published in config.published.items():
                assert protocol in ("zero_shot", "finetuned", "clip2video")
                assert published.keys() <= keys
                assert all(value >= 1 if key.endswith("_rank") else 0 < value < 1 for key, value in published.items())


def test_a_benchmark_added_as_the_documentation_says_runs(checkpoint, tmp_path):
    """A made-up one: which of two colours, for videos whose features happen to be there."""
    page = (ROOT / "docs" / "how-to" / "extend" / "data.md").read_text()
    block = textwrap.dedent(page.split('title="tasks/my_actions.yaml"\n')[1].split("```")[0])
    (tmp_path / "test.csv").write_text("video_id,label\nvideo7000,RedCar\nvideo7001,blue_car\n")
    task = yaml.safe_load(block.replace("data/my_actions/features", str(ENDTASK / "msrvtt" / "features")))
    task["dataset"] |= {"annotations": str(tmp_path / "test.csv"), "tokenizer": str(ENDTASK / "tokenizer")}
    own = tmp_path / "own.yaml"
    own.write_text(
        "# @package _global_\ndefaults: [/projects/videoclip/zeroshot@_global_, _self_]\n"
        + yaml.safe_dump({"task": task})
    )
    assert main(["evaluate", str(own), f"checkpoint={checkpoint}", "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_videos"] == result["num_labels"] == 2
    assert result["chance"] == {"top1": 0.5, "top5": 1.0, "mean_per_class": 0.5}
    assert result["published"] == {"top1": 0.5}


def test_prompts_without_a_place_for_the_label_are_refused():
    with pytest.raises(ValueError, match=r"task.prompts must be texts that contain \{label\}, got \['a video'\]"):
        registry.tasks["zero_shot_classification"].parse({"prompts": ["a video"]})


def test_a_task_may_be_a_file_of_the_users_own(checkpoint, tmp_path):
    section = {
        "_name": "text_video_retrieval",
        "dataset": {"_name": "msrvtt"} | local("msrvtt", "MSRVTT_JSFUSION_test.csv"),
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(section))
    out = tmp_path / "out.json"
    words = [f"task={tmp_path}/mine.yaml", "task.examples=3", f"checkpoint={checkpoint}"]
    assert main(["evaluate", "videoclip/zeroshot", *words, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["task"], len(result["examples"])) == ("text_video_retrieval", 3)
    (tmp_path / "mine.yaml").write_text("_name: [text")
    assert main(["evaluate", "videoclip/zeroshot", *words]) == 2


def test_frames_that_a_task_leaves_open_are_those_that_the_model_reads(checkpoint):
    """A model on CLIP has settings of its own; one on features has none."""
    clip = models["clip_mean"].build(TINY | {"sampling": "clip2video", "feature_framerate": 2})

    def read(model, frames):
        return with_frames({"task": {"dataset": {"frames": frames}}}, model)["task"]["dataset"]["frames"]

    own = {"num_frames": 8, "size": 8, "sampling": "clip2video", "feature_framerate": 2}
    assert read(clip, {}) == own
    assert read(clip, {"num_frames": 4, "sampling": None}) == own | {"num_frames": 4}
    assert read(clip, None) is None
    assert read(load_model(checkpoint), {"num_frames": 4}) == {"num_frames": 4}
