"""The ViT across sparse frames, against a plain loop over one clip without padding."""

import pytest
import torch
import torch.nn.functional as F

from mmpt_plugin.models.clip import attend
from mmpt_plugin.registry import models
from tests.models.clip_family import TINY, frames, texts
from tests.models.test_clip import build


def test_a_clip_equals_a_plain_loop():
    model = build("videoclip_vit")
    rows = torch.randn(5, 16, generator=torch.manual_seed(0))
    with torch.no_grad():
        tokens = torch.stack([row + model.position.weight[t] for t, row in enumerate(rows)])
        after = attend(model.temporal, tokens[None], torch.ones(1, 5, dtype=torch.bool))[0]
        pooled = F.normalize(sum(F.normalize(rows[t] + after[t], dim=0) for t in range(5)), dim=0)
        vector = model.encode_video(rows[None])[0]
    torch.testing.assert_close(vector, F.normalize(model.video_head.weight @ pooled, dim=0), atol=1e-5, rtol=1e-4)


def test_the_order_of_frames_matters():
    model = build("videoclip_vit")
    video, _ = frames(1)
    assert not torch.allclose(model.encode_video(video), model.encode_video(video.flip(1)), atol=1e-3)


def test_heads_of_clips_own_width_start_as_identities():
    model = build("videoclip_vit", embedding_dim=16)
    ids, mask = texts()
    vectors = F.normalize(model.backbone.text(ids, mask)[0], dim=-1)
    torch.testing.assert_close(model.encode_text(ids, mask), vectors)
    table = model.backbone.clip.text_model.embeddings.position_embedding.weight
    torch.testing.assert_close(model.position.weight, table[:8])
    assert len(model.temporal.layers) == 2


def test_it_has_sixteen_frames_and_clips_width():
    config = models["videoclip_vit"].parse({})
    assert (config.max_video_len, config.hidden_size, config.feature_dim) == (16, 512, 512)


@pytest.mark.parametrize("key", ["num_temporal_layers", "embedding_dim"])
def test_bad_settings_are_named(key):
    with pytest.raises(ValueError, match=rf"model.{key} must be at least 1, got 0"):
        models["videoclip_vit"].build(TINY | {key: 0})
