"""CLIP2Video's blocks, against plain loops over one clip without padding."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmpt_plugin.models import CLIPMean, load_model
from mmpt_plugin.models.clip import attend
from mmpt_plugin.models.clip2video import Alignment
from mmpt_plugin.registry import models
from tests.models.clip_family import TINY, TINY_CLIP, frames, texts
from tests.models.test_clip import build


@pytest.fixture(scope="module")
def model():
    return build("clip2video")


def clip(length, seed=0):
    return torch.randn(length, 16, generator=torch.manual_seed(seed))


def encoded(encoder, tokens):
    """The encoder over tokens of which all are real."""
    return attend(encoder, torch.stack(tokens)[None], torch.ones(1, len(tokens), dtype=torch.bool))[0]


def tokens_by_hand(model, rows):
    """f1 d1 f2 d2 .. fT, a token at a time."""
    block = model.difference
    place, kind = block.position.weight, block.kind.weight
    changed = encoded(block.differ, [rows[t + 1] - rows[t] + place[t + 1] for t in range(len(rows) - 1)])
    tokens = []
    for t, row in enumerate(rows):
        tokens.append(row + place[t] + kind[1])
        if t + 1 < len(rows):
            tokens.append(2 / (1 + torch.exp(-block.norm(changed[t]))) - 1 + place[t] + kind[0])
    return tokens


def aligned_by_hand(model, tokens):
    assign, centers = model.alignment.assign, model.alignment.centers
    total = torch.zeros(16)
    for k in range(len(centers)):
        residual = torch.zeros(16)
        for token in tokens:
            weights = torch.exp(token @ assign) / torch.exp(token @ assign).sum()
            residual += weights[k] * (token - centers[k])
        total += residual / residual.norm()
    return total / total.norm()


@pytest.mark.parametrize("length", [2, 5, 8])
def test_a_clip_equals_a_plain_loop(model, length):
    rows = clip(length)
    with torch.no_grad():
        after = encoded(model.difference.temporal, tokens_by_hand(model, rows))
        out = [rows[t] + after[2 * t] for t in range(length)]
        mean = sum(F.normalize(row, dim=0) for row in out) / length
        second = [rows[t] for t in range(0, length, 2)]
        if len(second) > 1:
            after = encoded(model.skipping, tokens_by_hand(model, second))
        else:
            block = model.difference
            after = encoded(model.skipping, [second[0] + block.position.weight[0] + block.kind.weight[1]])
        other = [row + after[2 * t] for t, row in enumerate(second)]
        aligned = aligned_by_hand(model, [*rows, *other])
        vector = model.encode_video(rows[None])[0]
    expected = torch.cat([F.normalize(mean, dim=0), aligned]) / math.sqrt(2)
    torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


def test_a_text_equals_a_plain_loop(model):
    """The first half is CLIP's text vector, the second the aligned vector of all tokens except the first."""
    ids, mask = texts(1)
    with torch.no_grad():
        pooled, tokens = model.backbone.text(ids, mask)
        vector = model.encode_text(ids, mask)[0]
    expected = torch.cat([F.normalize(pooled[0], dim=0), aligned_by_hand(model, list(tokens[0, 1:]))]) / math.sqrt(2)
    torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


def test_one_product_is_half_global_and_half_aligned(model):
    video, text = model.encode_video(*frames()), model.encode_text(*texts())
    halves = zip(video.split(16, 1), text.split(16, 1), strict=True)
    cosines = [F.cosine_similarity(v[:, None], t[None], dim=-1) for v, t in halves]
    torch.testing.assert_close(video @ text.T, (cosines[0] + cosines[1]) / 2)


def test_a_difference_is_real_where_both_of_its_frames_are(model):
    """Of 4 frames 2 are real: one difference, and neither what follows the second frame."""
    mask = torch.tensor([[True, True, False, False]])
    tokens, seen = model.difference.interleaved(clip(4)[None], mask)
    assert tokens.shape == (1, 7, 16)
    assert seen[0].tolist() == [True, True, True, False, False, False, False]


def test_the_centres_by_hand():
    """Two tokens, (1, 0) and (0, 1), two centres, 0 and (1, 0), equal weights of a half: the sum of residuals is
    (0.5, 0.5) to the one and (-0.5, 0.5) to the other, and the mean of their directions is upwards."""
    block = Alignment(2, num_centers=2)
    with torch.no_grad():
        block.assign.zero_()
        block.centers.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        vector = block(torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(vector, torch.tensor([[0.0, 1.0]]))


def test_the_blocks_start_from_the_text_tower():
    """Layers 0 to 3, layer 0 where there is one; its positions for positions and types."""
    model = models["clip2video"].build(TINY)
    tower = model.backbone.clip.text_model
    for number, layer in enumerate(model.difference.temporal.layers):
        own = tower.encoder.layers[number].state_dict()
        assert all(torch.equal(value, own[key]) for key, value in layer.state_dict().items())
    first = tower.encoder.layers[0].state_dict()
    for encoder in (model.difference.differ, model.skipping):
        assert len(encoder.layers) == 1
        assert all(torch.equal(value, first[key]) for key, value in encoder.layers[0].state_dict().items())
    table = tower.embeddings.position_embedding.weight
    assert torch.equal(model.difference.position.weight, table[:8])
    assert torch.equal(model.difference.kind.weight, table[:2])
    assert model.difference.position.weight.data_ptr() != table.data_ptr()
    assert model.alignment.centers.std().item() == pytest.approx(0.125, rel=0.3)


def test_a_trained_clip_mean_is_its_first_stage(tmp_path):
    """pretrained: the towers are the checkpoint's, and the blocks start from the checkpoint's text tower."""
    torch.manual_seed(3)
    stage = CLIPMean(models["clip_mean"].parse(TINY))
    stage.save_pretrained(tmp_path / "stage")
    model = models["clip2video"].build(
        {"pretrained": str(tmp_path / "stage"), "max_text_len": 8, "num_temporal_layers": 2}
    )
    for key, value in stage.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)
    first = stage.backbone.clip.text_model.encoder.layers[0].state_dict()
    assert all(torch.equal(v, first[k]) for k, v in model.skipping.layers[0].state_dict().items())
    with torch.no_grad():
        model.alignment.centers += 1
    model.save_pretrained(tmp_path / "whole")
    again = models["clip2video"].build(
        {"pretrained": str(tmp_path / "whole"), "max_text_len": 8, "num_temporal_layers": 2}
    )
    assert torch.equal(again.alignment.centers, model.alignment.centers)
    assert load_model(tmp_path / "whole").config.pretrained is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_centers": 0}, r"model.num_centers must be at least 1, got 0"),
        ({"num_temporal_layers": 5}, r"5 layers cannot be copied from a text tower with 4 layers"),
        ({"max_video_len": 13}, r"13 positions cannot be copied from a text tower with 12: lower model.max_video_len"),
        ({"backbone": TINY_CLIP | {"projection_dim": 8}}, r"width 16 differs from the width of the frame vectors, 8"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        models["clip2video"].build(TINY | settings)


def test_a_clip_of_too_many_frames_is_refused(model):
    with pytest.raises(ValueError, match=r"a clip of 9 frames is longer than the model's max_video_len 8"):
        model.encode_video(clip(9)[None])
