"""Pre-training that evaluates a retrieval benchmark on held-out videos at each validation; real trainings."""

import json

import pytest

pytest.importorskip("fairseq")

from mmpt_plugin.checkpoint import read_torch_file
from mmpt_plugin.report.curve import panels, read_log, records
from tests.conftest import run
from tests.fairseq_bridge.test_console import benchmark
from tests.fairseq_bridge.test_runs import words

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]

BEST = ["checkpoint.best_checkpoint_metric=t2v_recall@10", "checkpoint.maximize_best_checkpoint_metric=true"]


def validations(folder) -> list[dict]:
    return [record for record in records(folder / "train.log") if "valid_num_updates" in record]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_benchmark_is_evaluated_after_each_epoch_without_a_validation_split(kitchen, tmp_path, processes):
    """What is logged is what `mmpt evaluate` measures of the checkpoint, and TensorBoard has the same names."""
    overrides = [
        *benchmark(kitchen), *BEST, "dataset.disable_validation=false",
        f"distributed_training.distributed_world_size={processes}", f"common.tensorboard_logdir={tmp_path}/tensorboard",
    ]  # fmt: skip
    done = run("mmpt", *words(kitchen, tmp_path, *overrides))
    assert [record["epoch"] for record in validations(tmp_path)] == [1, 2]
    assert not any("loss" in name for name in validations(tmp_path)[0])  # there is no data for one
    assert done.stderr.count("  valid_t2v_recall@1 ") == 2
    assert "did not log a 'loss'" not in (tmp_path / "train.log").read_text()

    files = [override.replace("task.benchmark", "task") for override in benchmark(kitchen)]
    checkpoint, result = tmp_path / "checkpoint_last.pt", tmp_path / "metrics.json"
    run("mmpt", "evaluate", "videoclip/zeroshot", *files, f"checkpoint={checkpoint}", "--json", result)
    last = validations(tmp_path)[-1]
    for name, value in json.loads(result.read_text())["metrics"].items():
        assert float(last[f"valid_{name}"]) == pytest.approx(value, abs=1e-4), name

    scores = [float(record["valid_t2v_recall@10"]) for record in validations(tmp_path)]
    assert float(last["valid_best_t2v_recall@10"]) == max(scores)
    assert read_torch_file(tmp_path / "checkpoint_best.pt")["extra_state"]["val_loss"] == pytest.approx(max(scores))
    assert f"checkpoints  {tmp_path}: checkpoint_best.pt, checkpoint_last.pt" in done.stdout
    assert f"mmpt evaluate videoclip/zeroshot task=toy_kitchen_clips checkpoint={checkpoint}" in done.stdout

    curves = panels(read_log(tmp_path / "train.log"))["recall on held-out videos"]
    assert list(curves["valid t2v_recall@10"].values()) == scores
    chance = json.loads(result.read_text())["chance"]["t2v_recall@10"]
    assert list(curves["valid chance_t2v_recall@10"].values()) == pytest.approx([chance] * 2, abs=1e-4)
    assert "chance_" not in done.stderr
    tags = {folder.name: tensorboard_names(folder) for folder in (tmp_path / "tensorboard").iterdir()}
    assert tags["valid"] == {name.removeprefix("valid_") for name in last} - {"epoch", "num_updates"}
    assert {"loss", "t2v_recall@1", "pairs_per_second"} <= tags["train_inner"]


def tensorboard_names(folder) -> set[str]:
    """The names of the scalars in the event files of a folder."""
    from tensorboardX.proto.event_pb2 import Event

    names = set()
    for path in folder.glob("events.*"):
        content = path.read_bytes()
        while content:  # 8 bytes of length, 4 of checksum, the event, 4 of checksum
            length = int.from_bytes(content[:8], "little")
            event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
            names |= {value.tag for value in event.summary.value if value.HasField("simple_value")}
    return names


def test_with_a_validation_split_both_its_loss_and_the_benchmark_are_logged(kitchen, tmp_path):
    """The split is of other videos than the training's and may be those of the benchmark."""
    from mmpt_plugin.shards.make import make_shards

    make_shards(
        (kitchen.root / "test.txt").read_text().split(), features=kitchen.features,
        captions=kitchen.root / "captions", tokenizer=str(kitchen.root / "tokenizer"), out=tmp_path / "shards",
    )  # fmt: skip
    overrides = [f"task.dataset.splits.valid={tmp_path}/shards", "dataset.disable_validation=false"]
    run("mmpt", *words(kitchen, tmp_path / "run", *overrides, *benchmark(kitchen), epochs=1))
    (record,) = validations(tmp_path / "run")
    assert float(record["valid_loss"]) > 0
    assert 0 <= float(record["valid_t2v_recall@10"]) <= 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "there is no split 'valid' (task.dataset.splits), so the best checkpoint can't be"),
        (
            [*BEST, "task.benchmark.dataset.annotations=CLIPS"],
            "the validation benchmark has 12 of its 12 videos in common with split 'train'",
        ),
        ([*BEST, "task.benchmark=toy_kitchen_clip"], "Did you mean 'toy_kitchen_clips'?"),
        ([*BEST, "model.vocab_size=8"], "tokenizer"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_refused_before_training(kitchen, tmp_path, overrides, message):
    clips = [
        {"video_id": video_id, "start": 0, "end": 4, "caption": "chop the tomato"}
        for video_id in (kitchen.root / "train.txt").read_text().split()
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    overrides = [override.replace("CLIPS", str(tmp_path / "clips.jsonl")) for override in overrides]
    command = words(kitchen, tmp_path / "run", *benchmark(kitchen), "dataset.disable_validation=false", *overrides)
    done = run("mmpt", *command, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list((tmp_path / "run").glob("*.pt"))
