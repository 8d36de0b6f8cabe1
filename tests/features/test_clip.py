"""CLIP's image embeddings as features: transformers' own numbers."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from mmpt_plugin import registry
from mmpt_plugin.features.extract import extract
from mmpt_plugin.features.files import read_features
from mmpt_plugin.video.write import write_video

try:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as CLIPImageProcessor
except ModuleNotFoundError:  # transformers 4
    from transformers import CLIPImageProcessor

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A random CLIP of 32 x 32 pixels and width 8, in a folder as transformers saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    vision = TOWER | {"image_size": 32, "patch_size": 8}
    text = TOWER | {"vocab_size": 60, "max_position_embeddings": 20, "eos_token_id": 59, "bos_token_id": 58}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)).eval()
    torch.nn.init.normal_(model.visual_projection.weight)
    model.save_pretrained(str(folder))
    return folder, model


def scene(seconds: int, height: int, width: int) -> list[np.ndarray]:
    y, x = np.mgrid[0:height, 0:width] / max(height, 64)
    waves = [np.stack([np.sin(x + n + c) * np.cos(y - n) for c in range(3)], axis=2) for n in range(seconds)]
    return [(128 + 100 * wave).astype(np.uint8) for wave in waves]


def reference(model, pictures: list[np.ndarray]) -> np.ndarray:
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    pixels = processor(list(pictures), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).numpy()


def test_a_row_a_second_is_clip_s_own_embedding(clip, tmp_path):
    """The same pictures through transformers' preprocessing: ours come out of a compressed video and ffmpeg's scaling,
    theirs through Pillow's. The error may be 8 % of a row's length (a random CLIP enlarges it); another second's row
    is at least twice as far.
    """
    folder, model = clip
    pictures = scene(5, 96, 160)
    write_video(tmp_path / "v.mp4", pictures, fps=1)
    extract([tmp_path / "v.mp4"], tmp_path / "out", encoder={"_name": "clip", "weights": str(folder)})
    rows, expected = read_features(tmp_path / "out" / "v.npy"), reference(model, pictures)
    assert rows.shape == (5, 8)
    lengths = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(rows - expected, axis=1) < 0.08 * lengths).all()
    assert (np.linalg.norm(rows[1:] - expected[:-1], axis=1) > 0.16 * lengths[1:]).all()


def test_embeddings_of_square_pictures_are_exact(clip, tmp_path):
    """Nothing to scale or crop: equal to transformers to six digits; the mean of the two frames per second."""
    folder, model = clip
    encoder = registry.encoders.build({"_name": "clip", "weights": str(folder), "fps": 2})
    assert (encoder.fps, encoder.size, encoder.feature_dim) == (2, 32, 8)
    pictures = scene(4, 32, 32)
    frames = torch.from_numpy(np.stack(pictures)).unflatten(0, (2, 2))
    expected = reference(model, pictures).reshape(2, 2, 8).mean(axis=1)
    np.testing.assert_allclose(encoder(frames).numpy(), expected, atol=1e-5)


def test_weights_tell_fingerprints_apart_and_places_do_not(clip, tmp_path):
    folder, model = clip
    model.save_pretrained(str(tmp_path / "copy"))
    other = CLIPModel(model.config)
    other.save_pretrained(str(tmp_path / "other"))
    one, copy, different = (
        registry.encoders.build({"_name": "clip", "weights": str(path)}).fingerprint
        for path in (folder, tmp_path / "copy", tmp_path / "other")
    )
    assert one == copy != different
    assert json.loads(one)["fps"] == 1


def test_what_is_no_clip_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no CLIP at '.*gone'"):
        registry.encoders.build({"_name": "clip", "weights": str(tmp_path / "gone")})
    CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)).save_pretrained(str(tmp_path / "tower"))
    with pytest.raises(ValueError, match=r"encoder.weights: '.*tower' is a clip_vision_model. Possible"):
        registry.encoders.build({"_name": "clip", "weights": str(tmp_path / "tower")})
    with pytest.raises(ValueError, match=r"clip\.weights"):
        registry.encoders.build({"_name": "clip"})


def test_pixels_are_normalised_as_the_checkpoint_says(clip, tmp_path):
    """Not with OpenAI's statistics: this CLIP was trained with others."""
    _, model = clip
    model.save_pretrained(str(tmp_path))
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "image_processor_type": "CLIPImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = registry.encoders.build({"_name": "clip", "weights": str(tmp_path)})
    frames = torch.from_numpy(np.stack(scene(2, 32, 32)))
    pixels = (frames / 255 - torch.tensor(said["image_mean"])) / torch.tensor(said["image_std"])
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixels.permute(0, 3, 1, 2)).pooler_output
        expected = model.visual_projection(pooled)
    torch.testing.assert_close(encoder(frames[:, None]).cpu(), expected, atol=1e-5, rtol=1e-5)
    assert json.loads(encoder.fingerprint)["mean"] == said["image_mean"]
