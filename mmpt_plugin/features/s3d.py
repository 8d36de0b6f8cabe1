"""S3D with feature gating (Xie et al., ECCV 2018), the frozen encoder of VideoCLIP.

The weights of Miech et al. (CVPR 2020), trained on HowTo100M, load strictly. B clips, T frames, H x W pixels.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mmpt_plugin.checkpoint import load_strictly, read_torch_file
from mmpt_plugin.files import file_sha256, read_array
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.registry import register_encoder

logger = logging.getLogger(__name__)

Video = Float[Tensor, "_ _ _ _ _"]

# Channels of each inception block's branches: 1x1 | 1x1, separable 3 | 1x1, separable 3 | pool, 1x1
BLOCKS = {
    "3b": (192, (64, 96, 128, 16, 32, 32)),
    "3c": (256, (128, 128, 192, 32, 96, 64)),
    "4b": (480, (192, 96, 208, 16, 48, 64)),
    "4c": (512, (160, 112, 224, 24, 64, 64)),
    "4d": (512, (128, 128, 256, 24, 64, 64)),
    "4e": (512, (112, 144, 288, 32, 64, 64)),
    "4f": (528, (256, 160, 320, 32, 128, 128)),
    "5b": (832, (256, 160, 320, 32, 128, 128)),
    "5c": (832, (384, 192, 384, 48, 128, 128)),
}


@dataclass(kw_only=True)
class S3DEncoderConfig:
    """S3D, the feature encoder of VideoCLIP, for `mmpt extract`."""

    weights: str | None = None
    """File s3d_howto100m.pth (MIL-NCE, Miech et al., CVPR 2020). Null uses random weights, for tests only."""
    seed: int = 0
    """Seed of the random weights; unused with `weights`."""
    size: int = 224
    """Pixels of the square frames: the shorter side is scaled to it, then the center is cropped. Even."""
    fps: int = 30
    """Frames read per second, all of which make one feature row. Even; 30 as for VideoCLIP's features."""
    normalize: bool = True
    """Scale each feature row to unit length, as in the features that VideoCLIP was trained on."""
    dtype: str | None = None
    """Precision of the network: float32, float16 or bfloat16. Null means float16 on a GPU, float32 on a CPU. Features
    are stored as float16."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, "float32", "float16", "bfloat16"):
            raise ValueError(f"encoder.dtype must be float32, float16 or bfloat16, got {self.dtype}")
        if self.size < 2 or self.fps < 2 or self.size % 2 or self.fps % 2:
            raise ValueError(f"encoder.size and encoder.fps must be even and positive, got {self.size} and {self.fps}")


@register_encoder("s3d", dataclass=S3DEncoderConfig)
class S3DEncoder:
    """S3D of MIL-NCE (Miech et al., CVPR 2020): one video embedding of width 512 per second."""

    feature_dim = 512

    def __init__(self, config: S3DEncoderConfig) -> None:
        self.config = config
        self.fps, self.size = config.fps, config.size
        self.device = compute_device()
        self.dtype: torch.dtype = getattr(
            torch, config.dtype or ("float16" if self.device.type == "cuda" else "float32")
        )
        self.model = load_s3d(config).eval().to(self.device, self.dtype)
        self.model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        about = {"encoder": "s3d", **asdict(config), "weights": weights_file_digest(config.weights)}
        self.fingerprint = json.dumps(about)

    @torch.inference_mode()
    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]:
        # A permuted (S, F, H, W, 3) array already has the channels_last_3d memory format.
        video = frames.to(self.device).permute(0, 4, 1, 2, 3).to(self.dtype).div_(255)
        rows = self.model.encode_video(video).float()
        return F.normalize(rows, dim=1) if self.config.normalize else rows


def load_s3d(config: S3DEncoderConfig) -> "S3D":
    """A model with the configured weights, loaded strictly; without a file, random weights from the configured seed."""
    if config.weights is None:
        logger.warning("S3D has no weight file: its features come from random weights, seed %d", config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return S3D()
    path = Path(config.weights)
    weights = read_torch_file(path)
    model = S3D(vocab_size=len(weights.get("text_module.word_embd.weight", range(66250))))
    load_strictly(model, weights, where=str(path))
    return model


def weights_file_digest(path: str | None) -> str | None:
    """The file's SHA-256; None for random weights."""
    return None if path is None else file_sha256(Path(path))


def read_words(path: Path) -> dict[str, int]:
    """Read the word list distributed with the weights, an .npy of strings, as word -> index + 1."""
    try:
        words = read_array(path)
    except ValueError as error:
        raise ValueError(f"word list {error}") from error
    if words.ndim != 1 or words.dtype.kind != "U":
        raise ValueError(f"word list {path} holds {words.dtype} of shape {words.shape}, expected a list of strings")
    return {str(word): i for i, word in enumerate(words, start=1)}


def word_ids(sentences: Sequence[str], word_to_id: Mapping[str, int], *, max_words: int = 16) -> Int[Tensor, "B L"]:
    """Ids of lower-case words, padded with 0; unknown words are left out, as in training."""
    ids = torch.zeros(len(sentences), max_words, dtype=torch.long)
    for row, sentence in zip(ids, sentences, strict=True):
        known = [word_to_id[word] for word in re.findall(r"[\w']+", sentence.lower()) if word in word_to_id]
        row[: len(known)] = torch.tensor(known[:max_words], dtype=torch.long)
    return ids


class S3D(nn.Module):
    """S3D; fully convolutional, for any even T, H and W."""

    def __init__(self, *, vocab_size: int = 66250) -> None:
        super().__init__()
        self.conv1 = STConv(24, 64, (2, 4, 4), padding=(1, 2, 2))
        self.conv_2b = STConv(64, 64, (1, 1, 1))
        self.conv_2c = STConv(64, 192, (3, 3, 3), padding=(1, 1, 1), separable=True)
        self.gating = Gating(192)
        for name, (channels, branches) in BLOCKS.items():
            self.add_module(f"mixed_{name}", Inception(channels, *branches))
        self.fc = nn.Linear(1024, 512)
        # With random weights, ten gates each halve the activations; a random bias would then dominate every embedding.
        nn.init.zeros_(self.fc.bias)
        self.text_module = SentenceEmbedding(vocab_size)

    def encode_video(self, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 512"]:
        """RGB in [0, 1] -> the embedding, in the same space as those of `encode_text`."""
        embedding: Tensor = self.fc(self.mixed_5c_features(video))
        return embedding

    def encode_text(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 512"]:
        """`word_ids` of sentences -> embeddings; the dot product with a video embedding is the similarity."""
        embedding: Tensor = self.text_module(ids)
        return embedding

    def mixed_5c_features(self, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 1024"]:
        """The last convolutional layer, averaged over time and space."""
        x = self.conv1(space_to_depth(video))[:, :, 1:, 1:, 1:]
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.gating(self.conv_2c(self.conv_2b(x)))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self._blocks(x, "3b", "3c")
        x = max_pool(x, (3, 3, 3), (2, 2, 2))
        x = self._blocks(x, "4b", "4c", "4d", "4e", "4f")
        x = max_pool(x, (2, 2, 2), (2, 2, 2))
        return self._blocks(x, "5b", "5c").mean(dim=(2, 3, 4))

    def _blocks(self, x: Video, *names: str) -> Video:
        for name in names:
            x = self.get_submodule(f"mixed_{name}")(x)
        return x


def space_to_depth(video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 24 t h w"]:
    """Move blocks of 2 x 2 x 2 pixels to channels, with index ((t * 2 + h) * 2 + w) * 3 + c."""
    size, channels, frames, height, width = video.shape
    blocks = video.reshape(size, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    return blocks.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(size, 24, frames // 2, height // 2, width // 2)


def max_pool(x: Video, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Video:
    """Max pooling with TensorFlow's padding: max(kernel - stride, 0) zeros per axis, the smaller half in front."""
    padding: list[int] = []
    for k, s in zip(reversed(kernel), reversed(stride), strict=True):
        total = max(k - s, 0)
        padding += [total // 2, total - total // 2]
    return F.max_pool3d(F.pad(x, padding), kernel, stride, ceil_mode=True)


class STConv(nn.Module):
    """One convolution, or a spatial and a temporal one, each with batch norm and ReLU."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        padding: tuple[int, int, int] = (0, 0, 0),
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.separable = separable
        if separable:
            self.conv1 = conv(channels, out_channels, (1, *kernel[1:]), (0, *padding[1:]))
            self.conv2 = conv(out_channels, out_channels, (kernel[0], 1, 1), (padding[0], 0, 0))
            self.bn2 = nn.BatchNorm3d(out_channels)
        else:
            # The first layer has stride 2 in the paper; here space_to_depth has already halved its input.
            self.conv1 = conv(channels, out_channels, kernel, padding)
        self.bn1 = nn.BatchNorm3d(out_channels)

    def forward(self, x: Video) -> Video:
        """(B, C, T, H, W) to (B, out_channels, T', H', W'), with sizes from kernel and padding; the stride is 1."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x))) if self.separable else x


def conv(channels: int, out: int, kernel: tuple[int, int, int], padding: tuple[int, int, int]) -> nn.Conv3d:
    """A convolution without bias, with Kaiming initialization."""
    layer = nn.Conv3d(channels, out, kernel, padding=padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return layer


class Gating(nn.Module):
    """Scales each channel by a sigmoid of a linear layer on the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Video) -> Video:
        """Scale the channels of (B, C, T, H, W) by gates from 0 to 1, computed from their means over T, H and W."""
        gate = torch.sigmoid(self.fc(x.mean(dim=(2, 3, 4))))
        return x * gate[:, :, None, None, None]


class Inception(nn.Module):
    """Four branches, gated and concatenated."""

    def __init__(self, channels: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3: int) -> None:
        super().__init__()
        one, three, pad = (1, 1, 1), (3, 3, 3), (1, 1, 1)
        self.conv_b0 = STConv(channels, b0, one)
        self.conv_b1_a = STConv(channels, b1a, one)
        self.conv_b1_b = STConv(b1a, b1b, three, padding=pad, separable=True)
        self.conv_b2_a = STConv(channels, b2a, one)
        self.conv_b2_b = STConv(b2a, b2b, three, padding=pad, separable=True)
        self.conv_b3_b = STConv(channels, b3, one)
        self.gating_b0, self.gating_b1 = Gating(b0), Gating(b1b)
        self.gating_b2, self.gating_b3 = Gating(b2b), Gating(b3)

    def forward(self, x: Video) -> Video:
        """Concatenate four branches over the channels; T, H and W stay the same."""
        branches = (
            self.gating_b0(self.conv_b0(x)),
            self.gating_b1(self.conv_b1_b(self.conv_b1_a(x))),
            self.gating_b2(self.conv_b2_b(self.conv_b2_a(x))),
            self.gating_b3(self.conv_b3_b(F.max_pool3d(x, 3, stride=1, padding=1))),
        )
        return torch.cat(branches, dim=1)


class SentenceEmbedding(nn.Module):
    """Word embeddings, a linear layer, the maximum over words (including padding), and a linear layer."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.word_embd = nn.Embedding(vocab_size, 300)
        self.fc1 = nn.Linear(300, 2048)
        self.fc2 = nn.Linear(2048, 512)

    def forward(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 512"]:
        """Word ids to sentence embeddings, by a maximum over all L words, padding included."""
        words = F.relu(self.fc1(self.word_embd(ids)))
        embedding: Tensor = self.fc2(words.amax(dim=1))
        return embedding
