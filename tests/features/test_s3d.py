"""S3D equals the original: recordings in golden_s3d, weights and inputs from seeds."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpt_plugin.features.s3d import S3D, Gating, S3DEncoder, S3DEncoderConfig, read_words, word_ids

GOLDEN = Path(__file__).parent / "golden_s3d"
RECORDED = json.loads((GOLDEN / "meta.json").read_text())
TOLERANCE = 1e-5
SHAPES = json.loads((GOLDEN / "state_dict_shapes.json").read_text())


def seeded(key: str, shape: list[int]) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = np.random.RandomState((zlib.crc32(key.encode()) ^ RECORDED["base_seed"]) & 0xFFFFFFFF).standard_normal(shape)
    if key.endswith("running_mean") or key.endswith("bias"):
        n = 0.1 * n
    elif key.endswith("running_var"):
        n = 0.5 + np.abs(n)
    elif len(shape) == 1:
        n = 1 + 0.2 * n
    else:
        n = n * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("s3d") / "s3d.pth"
    torch.save({key: seeded(key, shape) for key, shape in SHAPES.items()}, path)
    return path


@pytest.fixture(scope="module")
def model(weights_file):
    made = S3D()
    made.load_state_dict(torch.load(weights_file, weights_only=True))
    return made.eval()


@pytest.fixture(scope="module")
def expected():
    return np.load(GOLDEN / "expected.npz")


def test_keys_and_shapes_are_the_released_file_s():
    assert {key: list(value.shape) for key, value in S3D().state_dict().items()} == SHAPES


@pytest.mark.parametrize("case", range(len(RECORDED["cases"])))
@torch.inference_mode()
def test_both_outputs_equal_the_recording(model, expected, case):
    about = RECORDED["cases"][case]
    video = np.random.RandomState(about["input_seed"]).random_sample(about["shape"]).astype(np.float32)
    mixed_5c = model.mixed_5c_features(torch.from_numpy(video))
    np.testing.assert_allclose(mixed_5c, expected[f"mixed_5c{case}"], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(model.fc(mixed_5c), expected[f"video_embedding{case}"], atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_gate_that_is_off_by_5_percent_would_be_seen(model, expected):
    """In any layer: the smallest such error in this recording is 4.6e-5, of a right model 1e-7."""
    about = RECORDED["cases"][0]
    video = torch.from_numpy(np.random.RandomState(about["input_seed"]).random_sample(about["shape"])).float()
    gates = [module for module in model.modules() if isinstance(module, Gating)]
    assert len(gates) == 37
    for gate in gates:
        hook = gate.register_forward_hook(lambda module, inputs, output: output * 1.05)
        try:
            error = model.mixed_5c_features(video) - torch.from_numpy(expected["mixed_5c0"])
        finally:
            hook.remove()
        assert error.abs().max() > 2 * TOLERANCE


@torch.inference_mode()
def test_sentences_equal_the_recording(model, expected):
    ids = word_ids(RECORDED["sentences"], read_words(GOLDEN / "s3d_dict_tiny.npy"))
    np.testing.assert_array_equal(ids, expected["text_tokens"])
    np.testing.assert_allclose(model.encode_text(ids), expected["text_embedding"], atol=TOLERANCE, rtol=0)


def test_the_encoder_s_rows_equal_the_recorded_extraction(weights_file, expected):
    """37 frames: a whole second and seven frames completed with black."""
    recorded = RECORDED["extract"]
    frames = np.random.RandomState(recorded["frames_seed"]).randint(0, 256, (recorded["frames"], 3, 224, 224))
    seconds = np.zeros((60, 224, 224, 3), dtype=np.uint8)
    seconds[: recorded["frames"]] = frames.transpose(0, 2, 3, 1)
    video = torch.from_numpy(seconds.reshape(2, 30, 224, 224, 3))

    rows = S3DEncoder(S3DEncoderConfig(weights=str(weights_file)))(video).cpu()
    np.testing.assert_allclose(rows.half(), expected["extract_f16"], atol=1e-3)
    np.testing.assert_allclose(
        rows, F.normalize(torch.from_numpy(expected["extract_raw"]), dim=1), atol=TOLERANCE, rtol=0
    )


@pytest.fixture(scope="module")
def dark_and_bright():
    videos = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8))
    videos[0] //= 4
    return videos


def test_random_weights_follow_their_seed_and_are_said_to_be_random(dark_and_bright, caplog):
    state = torch.random.get_rng_state()
    rows = [S3DEncoder(S3DEncoderConfig(size=32, fps=4, seed=seed))(dark_and_bright) for seed in (3, 3, 4)]
    assert "random weights, seed 3" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(rows[0], rows[1])
    assert not torch.allclose(rows[0], rows[2], atol=1e-2)


def test_random_weights_tell_clips_apart(dark_and_bright):
    """In float16, as features are stored, a row is rounded by about 0.0002."""
    rows = S3DEncoder(S3DEncoderConfig(size=32, fps=4))(dark_and_bright)
    assert (rows[0] - rows[1]).norm() > 0.02


def test_rows_have_length_one_unless_told_otherwise(dark_and_bright):
    lengths, raw = (
        S3DEncoder(S3DEncoderConfig(size=32, fps=4, normalize=normalize))(dark_and_bright).norm(dim=1)
        for normalize in (True, False)
    )
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not torch.allclose(raw, torch.ones_like(raw), atol=0.1)


def test_the_fingerprint_tells_weights_and_settings_apart_but_not_paths(weights_file, tmp_path):
    def fingerprint(**settings):
        return S3DEncoder(S3DEncoderConfig(size=32, fps=4, **settings)).fingerprint

    moved = tmp_path / "moved.pth"
    moved.write_bytes(weights_file.read_bytes())
    assert fingerprint(weights=str(weights_file)) == fingerprint(weights=str(moved))
    different = [fingerprint(weights=str(moved)), fingerprint(), fingerprint(seed=1), fingerprint(normalize=False)]
    assert len(set(different)) == 4


def test_weights_that_miss_a_layer_are_refused_by_name(tmp_path, model):
    weights = model.state_dict()
    del weights["fc.bias"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth does not fit the model: missing fc\.bias"):
        S3DEncoder(S3DEncoderConfig(weights=str(tmp_path / "part.pth")))


@pytest.mark.parametrize("settings", [{"size": 63}, {"fps": 15}, {"size": 0}, {"fps": -2}])
def test_odd_and_empty_sizes_are_refused(settings):
    with pytest.raises(ValueError, match=r"encoder\.size and encoder\.fps must be even and positive"):
        S3DEncoderConfig(**settings)


@pytest.mark.parametrize("content", [np.array([{"cut": 1}]), np.arange(3), None])
def test_a_word_list_is_strings_and_never_unpickled(tmp_path, content):
    path = tmp_path / "words.npy"
    if content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=r"word list .*words\.npy"):
        read_words(path)


def test_half_precision_gives_nearly_the_same_rows(dark_and_bright):
    whole, half = (S3DEncoder(S3DEncoderConfig(size=32, fps=4, dtype=dtype)) for dtype in (None, "bfloat16"))
    torch.testing.assert_close(half(dark_and_bright), whole(dark_and_bright), atol=2e-2, rtol=0)
    assert whole.fingerprint != half.fingerprint
    with pytest.raises(ValueError, match="dtype must be float32, float16 or bfloat16, got half"):
        S3DEncoderConfig(dtype="half")
