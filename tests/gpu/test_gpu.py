"""What a GPU computes is what the CPU computes, and a training step does not wait for it.

Most of them also run on the CPU, so that they are right when there is a GPU.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from mmpt_plugin.batch import Batch, length_mask
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.index import build, build_index, flat
from mmpt_plugin.index.flat import METRICS, Flat
from mmpt_plugin.models.packed import ATTENTION, difference
from mmpt_plugin.registry import models
from mmpt_plugin.samplers.dataset_embeddings import RunningMeans
from mmpt_plugin.shards.writer import ShardWriter
from mmpt_plugin.video.decode import SCALINGS, read_seconds
from mmpt_plugin.video.hwaccel import check_hwaccel
from tests.conftest import TINY_MODEL, run
from tests.index.test_index import grouped, recall
from tests.models.clip_family import FAMILY, SETTINGS, TINY
from tests.video.test_hwaccel import make_video

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]
LENGTHS = np.array([5, 1, 8, 3, 8, 2, 4])


@pytest.fixture(autouse=True)
def full_float32():
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def made(name: str, **settings: object) -> tuple[torch.nn.Module, Batch]:
    """A model and a batch for it, on the CPU in double precision."""
    torch.manual_seed(0)
    sizes = TINY_MODEL | {"dropout": 0.0, "hidden_size": 64} if name == "videoclip" else TINY | SETTINGS.get(name, {})
    model = models[name].build(sizes | settings).double()
    video_mask, text_mask = length_mask(LENGTHS, 8), length_mask(LENGTHS + 1, 9)
    video = torch.randn(7, 8, 512).double()
    if name != "videoclip":
        video = torch.randint(256, (7, 8, 8, 8, 3), dtype=torch.uint8)
    ids = torch.randint(5, 38, (7, 9)) * text_mask
    return model, Batch(video, video_mask, ids, text_mask, torch.arange(7)).packed()


def step(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, ...]:
    """The embeddings and the gradients of a training step."""
    model.zero_grad()
    video, text = model(batch)
    NCE(NCEConfig(parts=2)).with_metrics(video, text)[0].backward()
    return video, text, *(weight.grad for weight in model.parameters() if weight.grad is not None)


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Whatever waits for the GPU is an error."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["videoclip", *FAMILY])
def test_a_step_gives_the_embeddings_and_gradients_of_double_precision(name, device):
    for attention in ("auto", *ATTENTION):
        model, batch = made(name, attention=attention)
        expected = step(model, batch)
        on_device = copy.deepcopy(model).to(device, torch.float32)
        for found, exact in zip(step(on_device, batch.to(device)), expected, strict=True):
            worst = (found.cpu().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-3)
            assert worst < 1e-4, attention


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["videoclip", *FAMILY])
def test_half_precision_is_near(name, device):
    model, batch = made(name)
    expected = model(batch)
    for dtype in (torch.float16, torch.bfloat16):
        found = copy.deepcopy(model).to(device, dtype)(batch.to(device))
        for half, exact in zip(found, expected, strict=True):
            assert torch.cosine_similarity(half.cpu().double(), exact).min() > 0.99, dtype


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["videoclip", *FAMILY])
def test_a_step_does_not_wait(name, device):
    model, batch = made(name)
    model, batch = model.to(device, torch.float32), batch.to(device)
    step(model, batch)  # the first one chooses the attention
    with no_waiting(device):
        step(model, batch)


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_without_padding_can_be_used(dtype, causal):
    """On a V100 in bfloat16, it may not; then this says why."""
    assert difference("cuda", dtype, causal) is None


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_a_gpu_decodes_to_the_frames_of_a_cpu(tmp_path, pixels):
    path = make_video(tmp_path / "v.mp4", pixels)
    check_hwaccel("cuda")
    for scaling in SCALINGS:
        both = [list(read_seconds(path, fps=5, size=64, scaling=scaling, hwaccel=h)) for h in (None, "cuda:0")]
        np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("device", DEVICES)
def test_embeddings_of_training_are_kept_without_waiting(device):
    means = RunningMeans(np.zeros((3, 2), dtype=np.float16))
    for value, video in ((1.0, 2), (3.0, 2), (5.0, 0)):
        rows, ids = torch.full((1, 2), value, device=device), torch.tensor([video], device=device)
        with no_waiting(device):
            means.add(rows, rows, ids)
    assert means.merge().tolist() == [[5, 5], [0, 0], [2, 2]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_the_index_finds_what_the_cpu_finds(metric, device, monkeypatch):
    """In chunks smaller than the data, of both vectors and queries; also for more vectors than the CPU searches
    exactly."""
    monkeypatch.setattr(flat, "GPU_VECTORS_CHUNK", 300)
    monkeypatch.setattr(flat, "GPU_QUERIES_CHUNK", 7)
    monkeypatch.setattr(build, "FEW", 500 if device == "cuda" else 5000)
    vectors = grouped(50, 20)
    index = build_index(vectors, k=10, metric=metric)
    assert isinstance(index, Flat)
    for rows in (np.arange(1000), np.arange(0, 1000, 3)):
        on_device = index.only(rows).search(vectors[:40], 10)
        with monkeypatch.context() as only_cpu:
            only_cpu.setattr(flat, "compute_device", lambda: torch.device("cpu"))
            on_cpu = index.only(rows).search(vectors[:40], 10)
        np.testing.assert_allclose(on_device[0], on_cpu[0], rtol=1e-5, atol=1e-5)
        assert recall(on_device[1], on_cpu[1]) == 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.fairseq
@ON_GPU
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_training_in_half_precision_has_the_losses_of_float32_on_a_cpu(tmp_path, precision):
    """With the real fairseq-train: the first loss before any update, the last one after 16."""
    from tests.fairseq_bridge.test_training import flags, losses

    rng = np.random.default_rng(0)
    tokenizer = {"name": "made", "cls_id": 2, "sep_id": 3, "pad_id": 0}
    with ShardWriter(tmp_path / "shards", feature_dim=512, encoder="made", tokenizer=tokenizer) as writer:
        for number in range(12):
            times = np.stack([np.arange(10) * 4, np.arange(10) * 4 + 3], axis=1).astype(np.float32)
            features = rng.standard_normal((40, 512)).astype(np.float16)
            writer.add(f"v{number}", features, times, rng.integers(5, 300, (10, 6)).tolist())
    found = []
    for name, options in (("cpu", {"cpu": True}), ("gpu", {precision: True, "optimizer": "fused_adamw"})):
        words = flags(tmp_path / name, tmp_path / "shards", max_epoch=4, **options)
        found.append(losses(run("fairseq-train", "--user-dir", "mmpt_plugin", *words).stdout))
    assert len(found[0]) == len(found[1]) == 16
    assert found[1][0] == pytest.approx(found[0][0], rel=0.02)
    assert found[1][-1] == pytest.approx(found[0][-1], rel=0.1)
    assert torch.load(tmp_path / "gpu" / "checkpoint_last.pt", weights_only=False)["model"]
