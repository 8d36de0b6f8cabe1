"""The adapter of a registered criterion: its inputs, outputs and logs; without training."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq.logging import metrics  # noqa: E402

from mmpt_plugin.criterions import BestFitNCE, CandidateNCEConfig, NCEConfig  # noqa: E402
from mmpt_plugin.distributed import gather_ids  # noqa: E402
from mmpt_plugin.fairseq_bridge import preemption  # noqa: E402
from mmpt_plugin.fairseq_bridge.criterion import FairseqCriterionAdapter  # noqa: E402
from mmpt_plugin.fairseq_bridge.preemption import LOG_KEY  # noqa: E402
from mmpt_plugin.fairseq_bridge.train import sections  # noqa: E402
from mmpt_plugin.registry import criterions  # noqa: E402
from tests.ranks import on_ranks  # noqa: E402

VIDEO = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
TEXT = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]])
SAMPLE = {
    "video_mask": torch.tensor([[True, True], [True, False], [True, True]]),
    "text_mask": torch.tensor([[True], [True], [False]]),
    "video_ids": torch.tensor([7, 7, 9]),
}


def adapted(name, config):
    return type("Adapted", (FairseqCriterionAdapter,), {"entry": criterions[name]})(config, SimpleNamespace())


def model(**sample):
    return VIDEO, TEXT


@pytest.mark.parametrize("requested", [False, True])
def test_the_loss_is_a_mean_already_and_its_size_is_1(monkeypatch, requested):
    monkeypatch.setattr(preemption._stop, "requested", requested)
    config = CandidateNCEConfig(temperature=0.5)
    loss, size, log = adapted("best_fit_nce", config)(model, SAMPLE)
    expected, recall = BestFitNCE(config).with_metrics(VIDEO, TEXT, video_ids=SAMPLE["video_ids"])
    assert loss.item() == expected.item()
    assert size == 1
    assert log == {
        "loss": pytest.approx(expected.item()),
        "pairs": 3,
        "steps": 1,
        **recall,
        LOG_KEY: int(requested),
        "nsentences": 3,
        "ntokens": 7,  # 5 seconds and 2 word pieces
    }


def test_logged_values_are_means_over_steps_though_fairseq_may_have_summed_them():
    logs = [{"loss": 6.0, "steps": 3, "pairs": 9, LOG_KEY: 1}, {"loss": 2.0, "steps": 1, "pairs": 3, LOG_KEY: 0}]
    with metrics.aggregate(new_root=True) as logged:
        FairseqCriterionAdapter.reduce_metrics(logs)
    assert logged.get_smoothed_values() == {"loss": 2.0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_temperature_is_never_halved(dtype):
    adapter = adapted("nce", NCEConfig(learn_temperature=True, temperature=0.07)).to(dtype)
    (parameter,) = adapter.parameters()
    assert parameter.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("unit", [True, None, False])
def test_a_loss_on_cosines_refuses_vectors_of_other_lengths(unit):
    made = SimpleNamespace(model=SimpleNamespace(unit_vectors=unit))
    for wrapped in (made, SimpleNamespace(module=made)):
        adapted("nce", NCEConfig()).check(wrapped)
        if unit is False:
            with pytest.raises(ValueError, match=r"criterion 'best_fit_nce' needs unit vectors"):
                adapted("best_fit_nce", CandidateNCEConfig()).check(wrapped)
        else:
            adapted("best_fit_nce", CandidateNCEConfig()).check(wrapped)


def test_a_renamed_key_reaches_fairseq_under_its_new_name(caplog):
    project = {"criterion": {"_name": "sigmoid", "texts_at_once": 4, "bias": -5.0}}
    assert sections(project, cpu=True)["criterion"] == {"_name": "sigmoid", "text_chunk_size": 4, "bias": -5.0}
    assert "sigmoid.texts_at_once is now sigmoid.text_chunk_size" in caplog.text


def training_rank(rank: int, folder: str) -> None:
    """Steps of one epoch and of the next; one rank holds fewer pairs in a step that the other does not reach."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    criterion = adapted("nce", NCEConfig()).train()

    def step(pairs: int) -> int:
        """How often the ranks compare their numbers of pairs."""
        with mock.patch("mmpt_plugin.distributed.gather_ids", wraps=gather_ids) as compared:
            criterion(lambda **_: (VIDEO[:pairs], TEXT[:pairs]), SAMPLE)
        return compared.call_count

    found = {"epoch 1": [step(3), step(3)]}
    if rank == 1:
        with pytest.raises(ValueError, match="^rank 1 holds 2 pairs, but 3 in the batches before: all ranks must have"):
            step(2)
    criterion.expect_pairs(None)
    found["epoch 2"] = [step(2), step(2)]
    criterion.eval()
    found["validation"] = [step(1 + rank)]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_compare_their_numbers_of_pairs_once_an_epoch(tmp_path):
    on_ranks(training_rank, 2, str(tmp_path))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found == {"epoch 1": [1, 0], "epoch 2": [1, 0], "validation": [0]}
