"""CLIP and SigLIP as a backbone, against transformers' own; and what all models on them share."""

import argparse
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from mmpt_plugin.batch import Batch
from mmpt_plugin.checkpoint import read_torch_file
from mmpt_plugin.features.clip import load_clip
from mmpt_plugin.features.extract import encode
from mmpt_plugin.models import CLIPMean, CLIPModelConfig, VideoCLIP, load_model
from mmpt_plugin.models.backbone import backbone_config
from mmpt_plugin.models.padding import chunked
from mmpt_plugin.registry import encoders, models
from mmpt_plugin.tokenizer import cut_text
from mmpt_plugin.video.decode import read_squares
from mmpt_plugin.video.write import write_video
from tests.models.clip_family import FAMILY, SETTINGS, TINY, TINY_CLIP, TINY_SIGLIP, frames, texts, transformers_model


def build(name="clip_mean", **settings):
    """In eval mode; the weights are those of one seed, grown so that what they do is seen."""
    torch.manual_seed(0)
    model = models[name].build(TINY | SETTINGS.get(name, {}) | settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


@pytest.fixture(params=[TINY_CLIP, TINY_SIGLIP], ids=["clip", "siglip"])
def folder(request, tmp_path):
    model = transformers_model(request.param)
    model.save_pretrained(tmp_path / "towers")
    return tmp_path / "towers", model


def test_a_folder_of_clip_or_siglip_gives_its_own_vectors(folder):
    """Frames by the vision tower and text by the text tower, as get_image_features and get_text_features have them."""
    path, theirs = folder
    model = CLIPMean(CLIPModelConfig(clip=str(path), max_text_len=8)).eval()
    assert model.config.backbone["model_type"] == theirs.config.model_type
    video, mask = frames()
    clip = theirs.config.model_type == "clip"
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073] if clip else [0.5] * 3)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711] if clip else [0.5] * 3)
    pixels = ((video / 255 - mean) / std).flatten(0, 1).permute(0, 3, 1, 2)
    ids, text_mask = texts()
    padded = ids if clip else F.pad(ids, (0, 12 - ids.shape[1]), value=1)
    with torch.no_grad():
        images, words = theirs.get_image_features(pixels), theirs.get_text_features(padded)
        images = getattr(images, "pooler_output", images).view(3, 4, -1)  # transformers 4 returns the tensor itself
        words = getattr(words, "pooler_output", words)
        made = model.backbone.frames(video, mask)
        pooled, tokens = model.backbone.text(ids, text_mask)
    torch.testing.assert_close(made[mask], images[mask], atol=1e-5, rtol=1e-4)
    assert not made[~mask].any()
    torch.testing.assert_close(pooled, words, atol=1e-5, rtol=1e-4)
    assert tokens.shape == (3, 7, 16)


def test_the_mean_of_unit_vectors_by_hand():
    """(3, 4) and (0, 2) are (0.6, 0.8) and (0, 1) at unit length; their mean's direction is (0.6, 1.8)."""
    video = torch.zeros(1, 3, 16)
    video[0, :, :2] = torch.tensor([[3.0, 4.0], [0.0, 2.0], [9.0, 9.0]])
    vector = build().encode_video(video, torch.tensor([[True, True, False]]))
    expected = torch.tensor([0.6, 1.8]) / torch.tensor([0.6, 1.8]).norm()
    torch.testing.assert_close(vector[0, :2], expected)
    assert not vector[0, 2:].any()


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("seen", ["frames", "features"])
def test_padded_frames_change_no_output(name, seen):
    """Neither the neighbour of the last real frame nor the length of the batch, whatever values the padding has."""
    model = build(name)
    if seen == "frames":
        video, _ = frames(clips=2, length=3)
        padding = torch.full((2, 3, 8, 8, 3), 255, dtype=torch.uint8)
    else:
        video = torch.randn(2, 3, 16, generator=torch.manual_seed(1))
        padding = torch.full((2, 3, 16), torch.nan)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    padded = torch.cat([video.where(mask[(...,) + (None,) * (video.ndim - 2)], padding[:, :3]), padding], dim=1)
    with torch.no_grad():
        expected = torch.cat([model.encode_video(video[:1]), model.encode_video(video[1:, :2])])
        found = model.encode_video(padded, F.pad(mask, (0, 3)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model.encode_video(video[:1, :2]), expected[:1], atol=1e-3)  # a real frame does change it


@pytest.mark.parametrize("name", FAMILY)
def test_a_clip_of_one_frame_or_of_none_has_a_finite_vector_and_gradients(name):
    model = build(name)
    video, text = model(
        Batch(
            video=frames(2, 3)[0],
            video_mask=torch.tensor([[True, False, False], [False, False, False]]),
            text=texts(2)[0],
            text_mask=texts(2)[1],
            video_ids=torch.arange(2),
        )
    )
    (video * text).sum().backward()
    assert torch.isfinite(video).all()
    torch.testing.assert_close(video[:1], model.encode_video(frames(2, 3)[0][:1, :1]), atol=1e-5, rtol=1e-4)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FAMILY)
def test_padded_words_change_no_output(name):
    model = build(name)
    ids, mask = texts()
    longer = F.pad(ids.masked_fill(~mask, 7), (0, 3), value=7)
    found = model.encode_text(longer, F.pad(mask, (0, 3)))
    for row, vector in enumerate(found):
        expected = model.encode_text(ids[row : row + 1, : row + 5])[0]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("sizes", [TINY_CLIP, TINY_SIGLIP], ids=["clip", "siglip"])
def test_padded_words_change_no_output_of_either_backbone(name, sizes):
    """SigLIP pads texts itself, to its own length, so the padding of a batch does not matter either."""
    model = build(name, backbone=sizes)
    ids, mask = texts()
    words = model.encode_text(ids, mask)
    longer = F.pad(ids.masked_fill(~mask, 7), (0, 1), value=7)
    torch.testing.assert_close(model.encode_text(longer, F.pad(mask, (0, 1))), words, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_is_nearly_the_same(name):
    model = models[name].build(TINY | SETTINGS.get(name, {})).eval()
    whole = model.encode_text(*texts()), model.encode_video(*frames())
    model.half()
    for half, vectors in zip((model.encode_text(*texts()), model.encode_video(*frames())), whole, strict=True):
        assert half.dtype == torch.float32  # lengths are computed in single precision
        torch.testing.assert_close(half, vectors, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", FAMILY)
def test_vectors_have_unit_length_and_the_configured_width(name):
    model = build(name)
    for vectors in (model.encode_video(*frames()), model.encode_text(*texts())):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
        assert vectors.shape == (3, model.config.hidden_size)


def test_only_real_frames_go_through_the_vision_tower():
    model = build()
    seen = []
    model.backbone.clip.vision_model.register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    model.encode_video(*frames())
    assert seen == [11]


@pytest.mark.parametrize("name", FAMILY)
def test_written_and_read_again(name, tmp_path):
    """As a folder, and as fairseq keeps it: with flags in a namespace, mappings as strings of YAML."""
    model = build(name, freeze_vision=True)
    model.save_pretrained(tmp_path / "folder")
    config = {"_name": name, "backbone": json.dumps(model.config.backbone), "clip": "gone/away"}
    config |= {"max_text_len": 8, "max_video_len": 8} | SETTINGS.get(name, {})
    torch.save(
        {
            "cfg": {"model": argparse.Namespace(**config)},
            "model": {f"model.{key}": value for key, value in model.state_dict().items()},
        },
        tmp_path / "fairseq.pt",
    )
    assert read_torch_file(tmp_path / "fairseq.pt")["cfg"]["model"]._name == name
    for path in (tmp_path / "folder", tmp_path / "fairseq.pt"):
        read = load_model(path)
        assert type(read) is type(model)
        assert read.config.freeze_vision == (path.suffix == "")
        torch.testing.assert_close(read.encode_video(*frames()), model.encode_video(*frames()))
        torch.testing.assert_close(read.encode_text(*texts()), model.encode_text(*texts()))
    with pytest.raises(ValueError, match=f"contains a '{name}', not a 'videoclip'"):
        VideoCLIP.from_pretrained(tmp_path / "folder")


def test_the_processors_mean_and_deviation_are_used_and_kept(tmp_path):
    transformers_model(TINY_CLIP).save_pretrained(tmp_path / "towers")
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "towers" / "preprocessor_config.json").write_text(json.dumps(said))
    CLIPMean(CLIPModelConfig(clip=str(tmp_path / "towers"), max_text_len=8)).save_pretrained(tmp_path / "ours")
    read = load_model(tmp_path / "ours")
    torch.testing.assert_close(read.backbone.pixel_mean, torch.tensor(said["image_mean"]))
    torch.testing.assert_close(read.backbone.pixel_std, torch.tensor(said["image_std"]))


def test_weights_that_lack_something_are_refused(tmp_path):
    model = transformers_model(TINY_CLIP)
    weights = model.state_dict()
    del weights["visual_projection.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"does not fit the model: missing visual_projection.weight"):
        load_clip(str(tmp_path), key="model.clip")


def test_a_text_that_is_cut_keeps_its_end():
    """To 4 places: [1 2 3 4 9] loses 4, [1 2 9] fits."""
    ids = torch.tensor([[1, 2, 3, 4, 9], [1, 2, 9, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    kept, seen = cut_text(ids, mask, length=4)
    assert kept.tolist() == [[1, 2, 3, 9], [1, 2, 9, 0]]
    assert seen.tolist() == [[True] * 4, [True] * 3 + [False]]


EMBEDDINGS = {
    "clip": """text_model.embeddings.token_embedding.weight text_model.embeddings.position_embedding.weight
        vision_model.embeddings.class_embedding vision_model.embeddings.patch_embedding.weight
        vision_model.embeddings.position_embedding.weight
        vision_model.pre_layrnorm.weight vision_model.pre_layrnorm.bias""",
    "siglip": """text_model.embeddings.token_embedding.weight text_model.embeddings.position_embedding.weight
        vision_model.embeddings.patch_embedding.weight vision_model.embeddings.patch_embedding.bias
        vision_model.embeddings.position_embedding.weight""",
}


@pytest.mark.parametrize("sizes", [TINY_CLIP, TINY_SIGLIP], ids=["clip", "siglip"])
@pytest.mark.parametrize(("num_layers", "frozen"), [(None, None), (0, []), (1, [0]), (3, [0, 1, 2])])
@pytest.mark.parametrize("name", ["clip_mean", "clip2video"])
def test_exactly_the_embeddings_and_the_first_layers_are_frozen(name, sizes, num_layers, frozen):
    """The vision tower has one layer, the text tower four; what clip2video copies from them is trained."""
    model = build(name, backbone=sizes, freeze_layers=num_layers)
    layers = [f"_model.encoder.layers.{number}." for number in frozen or []]
    expected = {"logit_scale", "logit_bias"} & dict(model.backbone.clip.named_parameters()).keys()
    if frozen is not None:
        expected |= set(EMBEDDINGS[sizes["model_type"]].split())
    expected |= {key for key, _ in model.backbone.clip.named_parameters() if any(layer in key for layer in layers)}
    found = {key for key, weight in model.named_parameters() if not weight.requires_grad}
    assert found == {f"backbone.clip.{key}" for key in expected}
    (model.encode_video(*frames()) @ model.encode_text(*texts()).T).exp().sum().backward()
    assert all((weight.grad is None) == (key in found) for key, weight in model.named_parameters())


def test_frozen_layers_are_those_of_a_training(tmp_path):
    """They change no vector, and a model that starts from a trained one has its own."""
    model = build(freeze_layers=1)
    model.save_pretrained(tmp_path)
    read = load_model(tmp_path)
    torch.testing.assert_close(read.encode_video(*frames()), model.encode_video(*frames()))
    again = models["clip_mean"].build({"pretrained": str(tmp_path), "max_text_len": 8})
    assert [key for key, weight in again.named_parameters() if not weight.requires_grad] == [
        "backbone.clip.logit_scale"
    ]


def test_a_frozen_vision_tower_gets_no_gradient():
    model = build(freeze_vision=True)
    (model.encode_video(*frames()) @ model.encode_text(*texts()).T).sum().backward()
    assert all(p.grad is None for p in model.backbone.vision_weights().parameters())
    assert model.backbone.clip.text_projection.weight.grad.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": {"text_config": {"hiden_size": 8}}}, r"no key 'model.backbone.text_config.hiden_size'. Did you"),
        ({"backbone": {"model_type": "bert"}}, r"no model.backbone.model_type 'bert'"),
        ({"max_text_len": 11}, r"model.max_text_len 11 needs 13 positions, .* but the text tower has 12"),
        ({"max_video_len": 0}, r"model.max_video_len must be at least 1, got 0"),
        ({"chunk_size": -1}, r"model.chunk_size must be 0 or more, got -1"),
        ({"freeze_layers": -1}, r"model.freeze_layers must be 0 or more, or null, got -1"),
        ({"freeze_layers": 5}, r"model.freeze_layers must be at most 4, the number of layers, got 5"),
        ({"backbone": {"text_config": {"hidden_size": 9}}}, r"model.backbone: .*9"),
        ({"clip": "/nowhere/at/all"}, r"model.clip: no CLIP at '/nowhere/at/all'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        models["clip_mean"].build(TINY | settings)


def test_another_kind_of_model_is_no_clip(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"is a bert. Possible: \['clip', 'siglip'\]"):
        load_clip(str(tmp_path), key="model.clip")


def test_wrong_frames_and_features_are_named():
    model = build()
    with pytest.raises(ValueError, match=r"the frames have \(4, 8\) pixels, the model expects \(8, 8\)"):
        model.encode_video(torch.zeros(1, 2, 4, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"features have width 5, the model expects 16"):
        model.encode_video(torch.zeros(1, 2, 5))


def test_no_sizes_are_vit_b_32():
    config = CLIPModelConfig()
    assert (config.feature_dim, config.image_size, config.vocab_size, config.max_position_embeddings) == (
        512, 224, 49408, 77,
    )  # fmt: skip
    assert backbone_config({}).vision_config.patch_size == 32


def gradients(model, video, text):
    model.zero_grad()
    (model.encode_video(*video) @ model.encode_text(*text).T).exp().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 has no text mask for doubles")
def test_chunks_have_the_gradients_of_the_whole_batch(name):
    model = build(name).double()
    whole = gradients(model, frames(5), texts(4))
    model.config.chunk_size = 2
    for key, gradient in gradients(model, frames(5), texts(4)).items():
        torch.testing.assert_close(gradient, whole[key], rtol=1e-9, atol=1e-9)


def test_dropout_is_drawn_again_as_it_was():
    """Recomputed chunks have the gradients of the same chunks kept in memory, under the same seed."""
    sizes = {**TINY_CLIP, "text_config": TINY_CLIP["text_config"] | {"attention_dropout": 0.5}}
    model = build(backbone=sizes).train()
    text = texts(4)
    torch.manual_seed(7)
    kept = torch.cat([model.text_vectors(*part) for part in zip(*(rows.split(2) for rows in text), strict=True)])
    torch.manual_seed(7)
    again = chunked(model.text_vectors, *text, size=2)
    torch.testing.assert_close(again, kept)
    weight = model.backbone.clip.text_projection.weight
    layer = model.backbone.clip.text_model.encoder.layers[0].mlp.fc1.weight
    factor = torch.randn_like(kept)
    for one, other in zip(
        torch.autograd.grad((again * factor).sum(), [weight, layer]),
        torch.autograd.grad((kept * factor).sum(), [weight, layer]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    torch.manual_seed(8)
    assert not torch.allclose(chunked(model.text_vectors, *text, size=2), kept)


def kept_bytes(model, clips):
    """What a forward pass keeps for the backward pass, weights and inputs left out."""
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    video, mask = frames(clips)
    own |= {video.data_ptr(), mask.data_ptr()}
    sizes = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        vectors = model.encode_video(video, mask)
    del vectors
    return sum(sizes.values())


def test_chunks_keep_little_of_a_forward_pass():
    """Without chunks, saved activations grow with the batch; with chunks, only inputs and outputs are saved."""
    model = build()
    whole = kept_bytes(model, 16)
    assert whole > 1.9 * kept_bytes(model, 8)
    model.config.chunk_size = 2
    assert kept_bytes(model, 16) < whole / 10


@pytest.fixture(scope="module")
def moving_videos(tmp_path_factory):
    """Two files of twelve frames at four a second, each frame of one grey value."""
    folder = tmp_path_factory.mktemp("videos")
    for number, greys in enumerate((range(0, 240, 20), range(240, 0, -20))):
        write_video(folder / f"{number}.mp4", (np.full((16, 16, 3), grey, dtype=np.uint8) for grey in greys), fps=4)
    return sorted(folder.glob("*.mp4"))


def test_video_files_go_through_the_models_own_towers(moving_videos, tmp_path):
    """A tower that has learned since it was loaded: its vectors, of frames spread over the whole video, are the
    model's own."""
    transformers_model(TINY_CLIP).save_pretrained(tmp_path)
    model = CLIPMean(CLIPModelConfig(clip=str(tmp_path), max_text_len=8, max_video_len=3)).eval()
    with torch.no_grad():
        for weight in model.backbone.vision_weights().parameters():
            weight += 0.1 * torch.randn_like(weight)
    vectors = model.embed_videos(moving_videos)
    times = [0.5, 1.5, 2.5]  # the middles of three equal parts of three seconds
    clips = torch.stack([torch.from_numpy(np.stack(list(read_squares(path, times, size=8)))) for path in moving_videos])
    torch.testing.assert_close(vectors, model.encode_video(clips).detach())
    frozen = {"_name": "clip", "weights": str(tmp_path)}
    with pytest.raises(ValueError, match="is not this model's vision tower"):
        model.embed_videos(moving_videos, frozen)
    with pytest.raises(ValueError, match="truncate needs a model that reads features"):
        model.embed_videos(moving_videos, truncate=True)


def test_frozen_features_of_the_models_own_tower_are_taken(moving_videos, tmp_path):
    """For a model that was trained on them: one row per second, with the same weights and pixel statistics."""
    theirs = transformers_model(TINY_CLIP)
    theirs.save_pretrained(tmp_path)
    model = CLIPMean(CLIPModelConfig(clip=str(tmp_path), max_text_len=8, max_video_len=3)).eval()
    model.encoder = {"_name": "clip", "weights": str(tmp_path)}
    rows = [encode(path, encoders.build(model.encoder)) for path in moving_videos]
    torch.testing.assert_close(model.embed_videos(moving_videos), model.embed_features(rows))
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "image_processor_type": "CLIPImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="normalizes pixels differently"):
        model.embed_videos(moving_videos)
