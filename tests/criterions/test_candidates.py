"""Losses over a text's candidate clips, and SigLIP's: by hand, against plain loops, and across processes."""

import math
import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmpt_plugin.criterions import MILNCE, NCE, BestFitNCE, CandidateNCEConfig, NCEConfig, Sigmoid, SigmoidConfig
from mmpt_plugin.distributed import from_rank_0
from tests.ranks import on_ranks

IDS = torch.tensor([7, 3, 7, 3, 3, 9])


def pairs(size=6, width=4):
    """Unit vectors, as these losses expect them."""
    torch.manual_seed(0)
    return tuple(F.normalize(torch.randn(size, width, dtype=torch.float64), dim=1) for _ in range(2))


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def looped(video, text, ids, *, temperature, together):
    """The definition, a text and a clip at a time; `together` makes one score of the candidates' exponentials."""
    total = 0.0
    for i in range(len(text)):
        scores = [math.exp(cosine(text[i], clip) / temperature) for clip in video]
        own = [score for score, video_id in zip(scores, ids.tolist(), strict=True) if video_id == ids[i]]
        total -= math.log(together(own) / sum(scores))
    return total / len(text)


@pytest.mark.parametrize(("criterion", "together"), [(BestFitNCE, max), (MILNCE, sum)])
def test_equals_a_plain_loop(criterion, together):
    video, text = pairs()
    loss = criterion(CandidateNCEConfig(temperature=0.5))(video, text, video_ids=IDS)
    assert loss.item() == pytest.approx(looped(video, text, IDS, temperature=0.5, together=together), rel=1e-6)


def test_the_most_similar_clip_of_the_own_video_is_the_positive():
    """One text, [1, 0], of video 0, whose clips score 0 and 2; a clip of video 1 scores 1."""
    video = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    config = CandidateNCEConfig(temperature=1.0)
    total = 1 + math.exp(2) + math.exp(1)
    even = math.log(3)  # the other texts are equally near to all three clips
    ids = torch.tensor([0, 0, 1])
    best = BestFitNCE(config)(video, text, video_ids=ids)
    assert best.item() == pytest.approx((math.log(total) - 2 + 2 * even) / 3)
    summed = MILNCE(config)(video, text, video_ids=ids)
    expected = (math.log(total) - math.log(1 + math.exp(2)) + (even - math.log(2)) + even) / 3
    assert summed.item() == pytest.approx(expected)


def test_other_clips_of_the_own_video_are_pushed_away():
    """Descent lowers the score of a candidate that is not the best, unlike under the sum's loss."""
    video = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]], requires_grad=True)
    text = torch.tensor([[1.0, 0.0]] * 3)
    config = CandidateNCEConfig(temperature=1.0)
    BestFitNCE(config)(video, text, video_ids=torch.tensor([0, 0, 0])).backward()
    assert video.grad[0, 0] > 0
    assert video.grad[1, 0] < 0


def test_videos_of_one_clip_each_make_both_the_plain_loss():
    video, text = pairs()
    plain = NCE(NCEConfig(temperature=0.07, directions="text_to_video"))(video, text)
    for criterion in (BestFitNCE, MILNCE):
        loss = criterion(CandidateNCEConfig())(video, text, video_ids=torch.arange(6))
        torch.testing.assert_close(loss, plain)


def test_recall_counts_texts_whose_video_is_found():
    """Text 0 is nearest to a clip of its own video, though not to its own clip; text 2 to another video's."""
    video = torch.tensor([[0.5, 0.0], [1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    config = CandidateNCEConfig()
    _, metrics = BestFitNCE(config).with_metrics(video, text, video_ids=torch.tensor([0, 0, 1]))
    assert metrics == {"t2v_recall@1": pytest.approx(2 / 3), "chance_recall@1": pytest.approx((2 + 2 + 1) / 9)}


def test_a_tie_with_another_videos_clip_is_no_hit():
    video, text = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for criterion in (BestFitNCE, MILNCE):
        _, metrics = criterion(CandidateNCEConfig()).with_metrics(video, text, video_ids=torch.tensor([0, 1]))
        assert metrics["t2v_recall@1"] == 0
    assert Sigmoid(SigmoidConfig()).with_metrics(video, text)[1]["v2t_recall@1"] == 0


def looped_sigmoid(video, text, *, scale, bias):
    total = 0.0
    for i, clip in enumerate(video):
        for j, words in enumerate(text):
            sign = 1 if i == j else -1
            total += math.log1p(math.exp(-sign * (scale * cosine(clip, words) + bias)))
    return total / len(video)


@pytest.mark.parametrize("text_chunk_size", [1, 4, 1024])
def test_sigmoid_equals_a_plain_loop(text_chunk_size):
    video, text = pairs()
    criterion = Sigmoid(SigmoidConfig(text_chunk_size=text_chunk_size))
    loss, metrics = criterion.with_metrics(video, text)
    assert loss.item() == pytest.approx(looped_sigmoid(video, text, scale=10, bias=-10), rel=1e-6)
    scores = video @ text.T
    assert metrics["v2t_recall@1"] == pytest.approx(float((scores.argmax(1) == torch.arange(6)).float().mean()))


@pytest.mark.parametrize("text_chunk_size", [2, 1024])
def test_sigmoids_recall_leaves_out_the_own_pair(text_chunk_size):
    """Videos 0, 2 and 3 are like their texts, video 1 is like text 0."""
    video = torch.eye(4)[[0, 0, 2, 3]]
    _, metrics = Sigmoid(SigmoidConfig(text_chunk_size=text_chunk_size)).with_metrics(video, torch.eye(4))
    assert metrics == {"v2t_recall@1": 0.75, "chance_recall@1": 0.25}


def test_sigmoid_starts_where_the_paper_does():
    """t' = log 10, b = -10; both are learned."""
    criterion = Sigmoid(SigmoidConfig())
    criterion(*pairs()).backward()
    assert criterion.log_scale.item() == pytest.approx(math.log(10))
    assert criterion.bias.item() == -10
    assert all(parameter.grad is not None and parameter.grad != 0 for parameter in criterion.parameters())


def test_sigmoid_never_holds_all_scores():
    """128 videos against 128 texts, 16 at a time: what forward keeps for backward is less than 128 x 128 scores."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        Sigmoid(SigmoidConfig(text_chunk_size=16))(*(rows.requires_grad_(True) for rows in pairs(128)))
    assert 0 < sum(kept) < 128 * 128


def test_scores_in_chunks_are_those_at_once():
    """Loss, metrics, and the gradients of vectors and temperature."""
    for name, (cls, config) in (ALL | {"parts": (NCE, NCEConfig(parts=2, learn_temperature=True))}).items():
        if name == "sigmoid":
            continue
        found = []
        for size in (1024, 4, 1):
            rows = [vectors.requires_grad_(True) for vectors in pairs()]
            criterion = cls(replace(config, score_chunk_size=size)).double()
            ids = {"video_ids": IDS} if "video_ids" in criterion.batch_fields else {}
            loss, metrics = criterion.with_metrics(*rows, **ids)
            loss.backward()
            metrics = {key: torch.as_tensor(value, dtype=torch.float64) for key, value in metrics.items()}
            found.append([loss, metrics, [leaf.grad for leaf in [*rows, *criterion.parameters()]]])
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("criterion", "config"), [(NCE, NCEConfig), (MILNCE, CandidateNCEConfig)])
def test_all_scores_are_never_in_memory(criterion, config):
    """128 pairs, 16 at a time: no tensor of forward and backward has more than 16 x 128 numbers."""
    named = {} if criterion is NCE else {"video_ids": torch.arange(128)}
    for size, largest in ((16, 16 * 128), (128, 128 * 128)):
        with Largest() as seen:
            rows = [vectors.requires_grad_(True) for vectors in pairs(128)]
            criterion(config(score_chunk_size=size))(*rows, **named).backward()
        assert seen.numbers == largest


class Largest(TorchDispatchMode):
    """The size of the largest tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in tree_leaves(result) if torch.is_tensor(leaf))])
        return result


def test_a_learned_temperature_stays_within_clips_limit_and_can_come_back():
    criterion = NCE(NCEConfig(temperature=0.01, learn_temperature=True))
    with torch.no_grad():
        criterion.log_scale += 3
    video, _ = pairs()
    criterion(video, video.flip(0)).backward()  # every pair is wrong: a smaller scale is better
    assert criterion.scale().item() == pytest.approx(100)
    assert criterion.log_scale.grad > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CandidateNCEConfig(temperature=0.0), r"criterion.temperature must be positive, got 0.0"),
        (lambda: NCEConfig(temperature=0.005, learn_temperature=True), r"kept at 0.01 or above, got 0.005"),
        (lambda: SigmoidConfig(temperature=-1.0), r"criterion.temperature must be positive, got -1.0"),
        (lambda: NCEConfig(score_chunk_size=0), r"criterion.score_chunk_size must be at least 1, got 0"),
        (lambda: SigmoidConfig(text_chunk_size=0), r"criterion.text_chunk_size must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


CRITERIONS = {
    "best_fit": (BestFitNCE, CandidateNCEConfig(temperature=0.5, learn_temperature=True)),
    "mil": (MILNCE, CandidateNCEConfig(temperature=0.5, learn_temperature=True)),
    "sigmoid": (Sigmoid, SigmoidConfig(text_chunk_size=2)),
}
ALL = CRITERIONS | {"nce": (NCE, NCEConfig())}


def graded(name, video, text, ids, weights):
    """The loss, and the gradients of two weights and of the criterion's own parameters."""
    cls, config = CRITERIONS[name]
    criterion = cls(config).double()
    weights = [weight.clone().requires_grad_(True) for weight in weights]
    named = {"video_ids": ids} if name != "sigmoid" else {}
    loss = criterion(video @ weights[0], text @ weights[1], **named)
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in [*weights, *criterion.parameters()])]


def validating_rank(rank: int, world_size: int, folder: str) -> None:
    """Each rank's own pairs in eval mode; then, in training, ranks with unequal numbers of them."""
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    video, text = pairs()
    losses = {}
    for name, (cls, config) in ALL.items():
        named = {"video_ids": IDS} if name in ("best_fit", "mil") else {}
        losses[name] = cls(config).eval()(video, text, **named)
    refused = {}
    for name, (cls, config) in ALL.items():
        rows = slice(0, 3 + rank)
        named = {"video_ids": IDS[rows]} if name in ("best_fit", "mil") else {}
        try:
            cls(config)(video[rows], text[rows], **named)
        except ValueError as error:
            refused[name] = str(error)
    calls = [0]

    def read() -> int:
        calls[0] += 1
        return 7

    def fail() -> int:
        raise ValueError("damaged")

    broadcast = from_rank_0(read)
    try:
        from_rank_0(fail)
    except ValueError as error:
        refused["rank 0"] = str(error)
    torch.save({"losses": losses, "refused": refused, "got": broadcast, "calls": calls[0]}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_a_validation_loss_is_each_ranks_own_and_unequal_ranks_are_named(tmp_path):
    """Two ranks that validate the same pairs have the loss of one process: none of them is the other's negative."""
    on_ranks(validating_rank, 2, 2, str(tmp_path))
    video, text = pairs()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, (cls, config) in ALL.items():
            named = {"video_ids": IDS} if name in ("best_fit", "mil") else {}
            torch.testing.assert_close(found["losses"][name], cls(config).eval()(video, text, **named))
            assert (
                found["refused"][name]
                == "the ranks hold [3, 4] pairs: all ranks must have the same number of pairs in a batch"
            )
        assert found["refused"]["rank 0"] == "damaged"
        assert (found["got"], found["calls"]) == (7, 1 - rank)  # rank 0 alone has read


def one_rank(rank: int, world_size: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    video, text, *weights = torch.load(f"{folder}/pairs.pt", weights_only=True)
    each = len(video) // world_size
    rows = slice(rank * each, (rank + 1) * each)
    for name in CRITERIONS:
        mean = graded(name, video[rows], text[rows], IDS[rows], weights)
        for value in mean:
            dist.all_reduce(value)
            value /= world_size
        if rank == 0:
            torch.save(mean, f"{folder}/{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_have_the_gradients_of_one_with_the_whole_batch(tmp_path, world_size):
    """Video 7's clips, and video 3's, lie on different ranks; three ranks tell the ring's directions apart."""
    torch.manual_seed(1)
    tensors = [*pairs(), torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)]
    torch.save(tensors, tmp_path / "pairs.pt")
    on_ranks(one_rank, world_size, world_size, str(tmp_path))
    video, text, *weights = tensors
    for name in CRITERIONS:
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for value, expected in zip(found, graded(name, video, text, IDS, weights), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
