"""The heads of CLIP4Clip, against plain loops over one clip without padding."""

import pytest
import torch
import torch.nn.functional as F

from mmpt_plugin.models.clip import attend
from mmpt_plugin.registry import models
from tests.models.clip_family import TINY
from tests.models.test_clip import build

MASKS = [[True] * 5, [True, True, True, False, False], [False, True, False, True, True]]


def clip(length, seed=0):
    return torch.randn(length, 16, generator=torch.manual_seed(seed))


def mean(rows):
    return F.normalize(sum(F.normalize(row, dim=0) for row in rows) / len(rows), dim=0)


@pytest.mark.parametrize("mask", MASKS)
def test_the_lstm_reads_the_real_frames_in_their_order(mask):
    model, rows = build("clip_lstm"), clip(5)
    real = rows[torch.tensor(mask)]
    with torch.no_grad():
        expected = mean(real + model.lstm(real[None])[0][0])
        vector = model.encode_video(rows[None], torch.tensor([mask]))[0]
    torch.testing.assert_close(vector, expected)


@pytest.mark.parametrize("mask", MASKS)
def test_the_transformer_reads_the_real_frames_at_their_positions(mask):
    model, rows, seen = build("clip_transformer"), clip(5), torch.tensor(mask)
    with torch.no_grad():
        placed = (rows + model.position.weight[:5])[seen]
        after = attend(model.temporal, placed[None], torch.ones(1, len(placed), dtype=torch.bool))[0]
        vector = model.encode_video(rows[None], seen[None])[0]
    torch.testing.assert_close(vector, mean(rows[seen] + after), atol=1e-5, rtol=1e-4)


def test_the_transformer_starts_from_the_text_tower_with_an_epsilon_of_its_own():
    model = models["clip_transformer"].build(TINY)
    tower = model.backbone.clip.text_model
    assert torch.equal(model.position.weight, tower.embeddings.position_embedding.weight[:8])
    assert len(model.temporal.layers) == 4
    for own, theirs in zip(model.temporal.layers, tower.encoder.layers, strict=True):
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in own.state_dict().items())
        assert (own.layer_norm1.eps, theirs.layer_norm1.eps) == (1e-12, 1e-5)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="model.num_temporal_layers must be at least 1, got 0"):
        models["clip_transformer"].build(TINY | {"num_temporal_layers": 0})
    with pytest.raises(ValueError, match="model.sampling must be one of uniform, .* got 'middle'"):
        models["clip_lstm"].build(TINY | {"sampling": "middle"})
    with pytest.raises(ValueError, match="a clip of 9 frames is longer than the model's max_video_len 8"):
        build("clip_transformer").encode_video(clip(9)[None])
