"""What changes from one epoch, or one validation, to the next."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq.logging import metrics  # noqa: E402

from mmpt_plugin.batch import Batch  # noqa: E402
from mmpt_plugin.fairseq_bridge.dataset import ClusterDataset  # noqa: E402
from mmpt_plugin.fairseq_bridge.task import FairseqTaskAdapter  # noqa: E402


class Drawn:
    """A data set whose clips are one number, drawn as real ones are: with the cluster's own generator."""

    feature_dim, pad_id = 1, 0

    def __len__(self):
        return 8

    def __getitem__(self, cluster):
        number = torch.tensor(cluster.rng().random()).view(1, 1, 1)
        mask = torch.ones(1, 1, dtype=torch.bool)
        return Batch(number, mask, torch.ones(1, 1, dtype=torch.int64), mask, torch.tensor(cluster.videos[:1]))


def clips(**planned):
    """Of three clusters, two of the same video."""
    dataset = ClusterDataset(Drawn())
    dataset.plan(np.array([[4], [4], [7]]), num_shards=1, **planned)
    batches = dataset.batch_by_size([], max_sentences=1)
    return [dataset.collater([dataset[cluster] for cluster in batch])["video"].item() for batch in batches]


def test_a_videos_clips_are_drawn_again_in_every_epoch_and_for_every_seed():
    first = clips(seed=1, epoch=1)
    assert clips(seed=1, epoch=1) == first
    assert not set(clips(seed=1, epoch=2)) & set(first)
    assert not set(clips(seed=2, epoch=1)) & set(first)
    assert len(set(first)) == 3  # the two clusters of one video too


class Weights(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))


def test_every_validation_measures_the_weights_it_finds():
    """Once for all batches of a validation, again after further updates."""
    measured = []

    def measure(model):
        measured.append(model.weight.item())
        return {"recall": model.weight.item()}

    task = object.__new__(FairseqTaskAdapter)
    core = Weights(0.25)
    task.measured, task.task = (-1, {}), SimpleNamespace(measure=measure)
    task.model = SimpleNamespace(num_updates=0, model=core)

    class Criterion(torch.nn.Module):
        def forward(self, model, sample):
            return torch.tensor(1.0), 1, {"loss": 1.0, "recall": 9.0}

        @staticmethod
        def reduce_metrics(logs):
            pass

    criterion = Criterion().eval()
    seen = []
    for num_updates, weight in ((0, 0.25), (5, 0.5), (9, 0.125)):
        task.model.num_updates = num_updates
        with torch.no_grad():
            core.weight.fill_(weight)
        logs = [task.valid_step({}, core, criterion)[2] for _ in range(3)]
        assert logs == [{"loss": 1.0}] * 3  # a batch's metric of the same name is left out
        with metrics.aggregate(new_root=True) as logged:
            task.reduce_metrics([{"loss": 1.0, "ntokens": 1, "nsentences": 1}], criterion)
        seen.append(logged.get_smoothed_value("recall"))
    assert measured == seen == [0.25, 0.5, 0.125]
