"""An epoch's clusters, kept next to the checkpoints, so that a run resumed within the epoch continues with them."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmpt_plugin.checkpoint import write_whole

logger = logging.getLogger(__name__)


def write_clusters(path: Path, clusters: Int[np.ndarray, "C K"], run: Mapping[str, object]) -> None:
    """`run` says what the clusters were made for: epoch, seed, number of videos, the sampler's settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: str(value) for key, value in run.items()} | {"sha256": digest(clusters)}
    write_whole(path, lambda beside: save_file({"clusters": np.ascontiguousarray(clusters)}, beside, metadata))


def read_clusters(path: Path, run: Mapping[str, object]) -> Int[np.ndarray, "C K"] | None:
    """The clusters that a resumed run stopped in, or None where the file was made for something else or is not there.

    Of the same epoch made for other settings, a warning says which.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata, clusters = file.metadata(), np.asarray(file.get_tensor("clusters"))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to draw the epoch's clusters again") from error
    if metadata["sha256"] != digest(clusters):
        raise ValueError(f"{path} is damaged (checksum): remove it to draw the epoch's clusters again")
    changed = [key for key, value in run.items() if metadata.get(key) != str(value)]
    if changed and "epoch" not in changed:
        differences = ", ".join(f"{key} was {metadata.get(key)} and is {run[key]}" for key in changed)
        logger.warning("%s is not used, the epoch's clusters are drawn again: %s", path, differences)
    return None if changed else clusters


def digest(clusters: Int[np.ndarray, "C K"]) -> str:
    """sha256 of the video indices."""
    return hashlib.sha256(np.ascontiguousarray(clusters).tobytes()).hexdigest()
