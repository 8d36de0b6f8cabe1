"""The bridge's workarounds for fairseq; each test fails if its workaround is removed."""

import argparse
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq.dataclass.configs import FairseqConfig  # noqa: E402

from mmpt_plugin import registry  # noqa: E402
from mmpt_plugin.checkpoint import read_torch_file  # noqa: E402
from mmpt_plugin.criterions import NCE  # noqa: E402
from mmpt_plugin.fairseq_bridge import install  # noqa: E402
from mmpt_plugin.fairseq_bridge.preemption import stops_at_step_boundaries  # noqa: E402
from mmpt_plugin.fairseq_bridge.train import component_dataclass, fairseq_config  # noqa: E402
from mmpt_plugin.samplers import RetrievalAugmented  # noqa: E402
from tests.conftest import TINY_MODEL  # noqa: E402

install()


@pytest.fixture
def task(kitchen, tmp_path):
    return set_up(kitchen, tmp_path)


def set_up(kitchen, tmp_path, *, train_subset="train", splits=None, sampler=None, **options):
    from fairseq import tasks

    config = fairseq_config(
        {
            "task": {
                "_name": "video_text_pretraining",
                "dataset": {
                    "_name": "overlapped_clips",
                    "splits": splits or {"train": str(kitchen.shards)},
                    "pairs_per_video": 2,
                },
                **options,
            },
            "sampler": sampler or {"_name": "retrieval_augmented", "cluster_size": 3, "num_neighbors": 6},
            "dataset": {"train_subset": train_subset},
            "model": {"_name": "videoclip", **TINY_MODEL},
            "criterion": {"_name": "nce"},
            "optimization": {"max_epoch": 3},
            "checkpoint": {"save_dir": str(tmp_path)},
        }
    )
    made = tasks.setup_task(config.task)
    made.build_model(config.model)
    made.load_dataset(train_subset)
    return made


def batches(task, epoch, **options):
    """As fairseq's trainer does at the start of an epoch."""
    iterator = task.get_batch_iterator(task.dataset("train"), epoch=epoch, seed=1, max_sentences=1, **options)
    return list(iterator.next_epoch_itr(shuffle=True))


def videos(batch):
    return list(dict.fromkeys(batch["video_ids"].tolist()))


def plan_of(task, split="train"):
    return task.plans[id(task.dataset(split))]


def planned(task):
    return [list(dict.fromkeys(cluster.videos)) for cluster in task.dataset("train").clusters]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_epoch_trains_on_its_own_clusters(task, num_workers):
    """Also with loader workers: an iterator kept from epoch 1 would serve the clusters of epoch 1 in every epoch."""
    seen = []
    for epoch in (1, 2, 3):
        arrived = [videos(batch) for batch in batches(task, epoch, num_workers=num_workers)]
        assert arrived == planned(task)
        seen.append(arrived)
    assert seen[0] != seen[1] != seen[2]


def test_the_last_batch_of_an_epoch_is_not_dropped(task):
    """12 videos in clusters of 3; fairseq's batch_by_size with batches of one and a multiple of 8 would drop one."""
    assert len(batches(task, 1, required_batch_size_multiple=8)) == 4


def test_every_rank_gets_equally_many_full_batches(task):
    """4 clusters on 3 ranks: two rounds of three, the missing two filled from the epoch's beginning."""
    ranks = [batches(task, 1, num_shards=3, shard_id=rank) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [2, 2, 2]
    assert videos(ranks[1][1]) == videos(ranks[0][0])
    assert not torch.equal(ranks[1][1]["video"], ranks[0][0]["video"])  # the same videos, newly sampled clips


def test_training_embeddings_serve_the_next_epochs_index(kitchen, tmp_path, monkeypatch):
    """The first epoch is indexed by a pass over all videos; the second by what training made in the first."""
    task = set_up(kitchen, tmp_path, reuse_training_embeddings=True)
    first = batches(task, 1)
    monkeypatch.setattr("mmpt_plugin.samplers.epoch_plan.embed_dataset", lambda *_, **__: pytest.fail("a second pass"))
    task.model.train()
    embedded = {}
    for batch in first:
        video, text = task.model(**batch)
        for pair, video_id in zip(((video + text) / 2).tolist(), batch["video_ids"].tolist(), strict=True):
            embedded.setdefault(video_id, []).append(pair)
    batches(task, 2)
    for video, pairs in embedded.items():
        mean = torch.tensor(pairs).mean(dim=0)
        torch.testing.assert_close(torch.tensor(plan_of(task).means.vectors[video]).float(), mean, atol=2e-3, rtol=2e-3)
    task.model.eval()
    task.model(**first[0])
    assert plan_of(task).means.counts.sum() == 0  # validation does not count as training


@pytest.mark.parametrize(
    ("before", "steps", "after", "shown"),
    [
        ((2, 1), 1, (1, 1), 2),
        ((1, 1), 3, (2, 1), 2),
        ((4, 1), 0, (1, 1), 0),
        ((1, 1), 2, (1, 2), 2),  # the same clusters in larger batches
        ((1, 2), 1, (2, 1), 2),
        ((2, 1), 1, (1, 2), 2),  # as many at a time: nothing changes
        ((1, 1), 1, (1, 4), 0),
    ],
)
def test_an_epoch_goes_on_with_other_processes_and_batches(task, caplog, before, steps, after, shown):
    """Of 4 clusters, `before` processes took batches of so many `steps` times; where what they took makes no whole step
    of `after`, it comes again."""

    def iterator(layout, rank=0):
        return task.get_batch_iterator(
            task.dataset("train"), num_shards=layout[0], shard_id=rank, max_sentences=layout[1], epoch=2, seed=1
        )

    stopped = iterator(before)
    epoch = stopped.next_epoch_itr(shuffle=True)
    for _ in range(steps):
        next(epoch)
    state = stopped.state_dict()
    ranks = []
    for rank in range(after[0]):
        resumed = iterator(after, rank)
        resumed.load_state_dict(state)
        ranks.append([batch["video_ids"][::2].tolist() for batch in resumed.next_epoch_itr(shuffle=True)])
    in_order = [video for step in zip(*ranks, strict=True) for batch in step for video in batch]
    assert in_order == [video for cluster in planned(task)[shown:] for video in cluster]
    at_once = [ranks * batch for ranks, batch in (before, after)]
    warned = f"resumed with {at_once[1]} clusters in a batch of all processes instead of {at_once[0]}" in caplog.text
    assert warned == (at_once[0] != at_once[1])


def test_a_checkpoint_of_before_clusters_were_counted_resumes(task):
    state = {"version": 2, "epoch": 2, "iterations_in_epoch": 1, "shuffle": False, "num_shards": 2}
    resumed = task.get_batch_iterator(task.dataset("train"), epoch=2, seed=1, max_sentences=1)
    resumed.load_state_dict(state)
    assert [videos(batch) for batch in resumed.next_epoch_itr(shuffle=True)] == planned(task)[2:]


def test_a_validation_shows_every_cluster_once_on_any_number_of_processes(task):
    """Training fills up the last round, a validation must not count a cluster twice."""
    dataset = task.dataset("train")
    dataset.plan(np.arange(9).reshape(3, 3), seed=1, epoch=1, num_shards=2, fill=False)
    assert [len(batch) for batch in dataset.batch_by_size(None, max_sentences=1)] == [1, 1, 1]
    assert [len(batch) for batch in dataset.batch_by_size(None, max_sentences=2)] == [2, 1]
    dataset.plan(np.arange(9).reshape(3, 3), seed=1, epoch=1, num_shards=2)
    assert [len(batch) for batch in dataset.batch_by_size(None, max_sentences=1)] == [1, 1, 1, 1]


def never(*_, **__):
    pytest.fail("the videos are embedded")


def test_a_resume_within_the_first_epoch_of_fine_tuning_keeps_its_clusters(kitchen, tmp_path, monkeypatch):
    """fairseq leaves the pre-training's number of updates on the model: 5,000 of them, where the run has had 2."""
    fresh = set_up(kitchen, tmp_path)
    fresh.model.set_num_updates(5000)
    first = batches(fresh, 1)
    (tmp_path / "checkpoint_last.pt").touch()
    resumed = set_up(kitchen, tmp_path)
    resumed.model.set_num_updates(2)
    monkeypatch.setattr("mmpt_plugin.samplers.epoch_plan.embed_dataset", never)
    assert [videos(batch) for batch in batches(resumed, 1)] == [videos(batch) for batch in first]


def test_a_run_that_starts_afresh_takes_no_clusters_that_are_lying_there(kitchen, tmp_path):
    """Those of an earlier try that came to no checkpoint, with other weights."""
    batches(set_up(kitchen, tmp_path), 1)
    embedded = []
    again = set_up(kitchen, tmp_path)
    spied(plan_of(again).sampler, embedded)
    batches(again, 1)
    assert embedded == [1]


def spied(sampler, calls):
    """Notes the epochs that clusters are drawn for."""
    original = sampler.clusters
    sampler.clusters = lambda epoch, embed: calls.append(epoch) or original(epoch, embed)


def test_a_changed_sampler_counts_within_the_epoch_too(kitchen, tmp_path, caplog):
    batches(set_up(kitchen, tmp_path), 2)
    (tmp_path / "checkpoint_last.pt").touch()
    changed = set_up(kitchen, tmp_path, sampler={"_name": "uniform", "cluster_size": 4})
    assert [len(videos(batch)) for batch in batches(changed, 2)] == [4, 4, 4]
    assert "sampler was {_name: retrieval_augmented, cluster_size: 3" in caplog.text


def test_a_finished_run_that_is_started_again_embeds_nothing_and_keeps_its_clusters(kitchen, tmp_path, monkeypatch):
    batches(set_up(kitchen, tmp_path), 3)
    kept = (tmp_path / "clusters.safetensors").read_bytes()
    (tmp_path / "checkpoint_last.pt").touch()
    monkeypatch.setattr("mmpt_plugin.samplers.epoch_plan.embed_dataset", never)
    batches(set_up(kitchen, tmp_path), 4)
    assert (tmp_path / "clusters.safetensors").read_bytes() == kept


def test_the_split_that_is_trained_on_may_have_any_name(kitchen, tmp_path):
    """`dataset.train_subset=other` gets the sampler that was asked for, and is kept apart from validation."""
    splits = {"other": str(kitchen.shards), "valid": str(kitchen.shards)}
    task = set_up(kitchen, tmp_path, train_subset="other", splits=splits)
    assert isinstance(plan_of(task, "other").sampler, RetrievalAugmented)
    task.cfg.disable_validation = False
    with pytest.raises(ValueError, match="split 'valid' has 12 of its 12 videos in common with split 'other'"):
        task.load_dataset("valid")


def test_a_checkpoint_is_written_before_each_validation(monkeypatch):
    """A validation may take longer than there is until the time limit."""
    import fairseq_cli.train
    from fairseq import checkpoint_utils

    order = []
    monkeypatch.setattr(checkpoint_utils, "save_checkpoint", lambda *_: order.append("save"))
    monkeypatch.setattr(fairseq_cli.train, "validate", lambda *_: order.append("validate") or [0.0])
    with stops_at_step_boundaries():
        fairseq_cli.train.validate(SimpleNamespace(checkpoint=None), None, None, None, ["valid"])
    assert order == ["save", "validate"]


def test_the_epochs_log_says_how_many_videos_it_shows(task):
    from fairseq.logging import metrics

    batches(task, 1)
    shown = {video for cluster in planned(task) for video in cluster}
    with metrics.aggregate("train", new_root=True) as logged:
        task.begin_epoch(1, task.model)
    assert logged.get_smoothed_value("coverage") == pytest.approx(len(shown) / 12, abs=1e-4)


def test_no_clusters_are_made_past_the_last_epoch(task, monkeypatch):
    """fairseq asks for the batches of one epoch more than it trains."""
    batches(task, 3)
    monkeypatch.setattr(plan_of(task), "_new_clusters", lambda *_: pytest.fail("indexed again"))
    task.get_batch_iterator(task.dataset("train"), epoch=4, seed=1, max_sentences=1)


def test_clusters_depend_on_the_weights(task):
    before = [videos(batch) for batch in batches(task, 2)]
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    plan_of(task)._planned = None
    assert [videos(batch) for batch in batches(task, 2)] != before


def test_checkpoints_of_fairseq_train_hold_a_namespace_that_torch_is_told_to_allow(tmp_path):
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "flags.pt")
    assert torch.load(tmp_path / "flags.pt", weights_only=True)["args"].lr == 1
    read_torch_file(tmp_path / "flags.pt")  # which allows it for itself, must not forbid it to fairseq
    assert torch.load(tmp_path / "flags.pt", weights_only=True)["args"].lr == 1


def test_features_of_another_width_are_refused(task, kitchen):
    task.datasets.clear()
    task.model.model.config.feature_dim = 1024
    with pytest.raises(ValueError, match=r"width 512, but the model expects features of width 1024"):
        task.load_dataset("train")


def test_no_two_components_of_one_command_share_a_flag():
    """fairseq keeps one of two flags of a name, silently."""
    install()
    fairseqs = {
        member.name
        for group in dataclasses.fields(FairseqConfig)
        if dataclasses.is_dataclass(group.type)
        and group.name in ("common", "dataset", "optimization", "checkpoint", "distributed_training", "ema", "bmuf")
        for member in dataclasses.fields(group.type)
    } - {"_name"}
    shared = {
        "seed",
        "max_epoch",
        "num_workers",
        "save_dir",
        "train_subset",
        "disable_validation",
        "best_checkpoint_metric",
    }  # read from fairseq, on purpose
    for model in registry.models:
        for criterion in registry.criterions:
            for task_name in registry.tasks:
                seen = set(fairseqs)
                for group, name in (("model", model), ("criterion", criterion), ("task", task_name)):
                    names = {f.name for f in dataclasses.fields(component_dataclass(group, name))} - {"_name"} - shared
                    assert not names & seen, f"{group} {name}: {names & seen}"
                    seen |= names


def test_fairseqs_own_options_are_reachable_by_their_names():
    config = fairseq_config({"ema": {"store_ema": True}, "optimization": {"update_freq": [4]}})
    assert config.ema.store_ema is True
    assert OmegaConf.to_container(config.optimization.update_freq) == [4]


def test_a_cpu_gets_what_fairseq_needs_there():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = fairseq_config({"distributed_training": {"ddp_backend": "pytorch_ddp"}})
    assert config.common.cpu
    assert config.distributed_training.ddp_backend == "legacy_ddp"
    assert config.distributed_training.distributed_backend == "gloo"


@pytest.mark.parametrize(
    ("field", "owner"),
    [("dropout", "model 'videoclip'"), ("max_epoch", r"fairseq \(optimization\)"), ("lr", "fairseq ")],
)
def test_a_component_with_the_flag_of_another_is_refused_when_it_registers(field, owner):
    """fairseq-train would silently set only one of them; a refused component is not registered."""
    install()
    config = dataclasses.make_dataclass("Config", [(field, float, 1.0)], kw_only=True)
    with pytest.raises(ValueError, match=rf"^criterion 'shares': Config.{field} has the flag of {owner}.* rename it$"):
        registry.criterions.register("shares", dataclass=config)(type("Shares", (NCE,), {}))
    assert "shares" not in registry.criterions
