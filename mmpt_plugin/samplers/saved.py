"""An epoch's clusters, kept beside the checkpoints, so that a run resumed within the epoch goes on with them."""

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


def write_clusters(path: Path, clusters: Int[np.ndarray, "C K"], run: Mapping[str, int], *, num_updates: int) -> None:
    """`run` says what the clusters were made for; `num_updates` is how far training had come when they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: str(value) for key, value in run.items()}
    metadata |= {"num_updates": str(num_updates), "sha256": digest(clusters)}
    write_whole(path, lambda beside: save_file({"clusters": np.ascontiguousarray(clusters)}, beside, metadata))


def read_clusters(path: Path, run: Mapping[str, int], *, num_updates: int) -> Int[np.ndarray, "C K"] | None:
    """The clusters a run stopped in, or None where the file is another run's, another epoch's or not there.

    A run that starts afresh (num_updates 0) makes its own; a resumed one has come at least as far as when the
    clusters were made.
    """
    if num_updates == 0 or not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata, clusters = file.metadata(), np.asarray(file.get_tensor("clusters"))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to draw the epoch's clusters anew") from error
    if metadata["sha256"] != digest(clusters):
        raise ValueError(f"{path} is damaged (checksum): remove it to draw the epoch's clusters anew")
    changed = [key for key, value in run.items() if metadata.get(key) != str(value)]
    if changed and "epoch" not in changed:
        differences = ", ".join(f"{key} was {metadata.get(key)} and is {run[key]}" for key in changed)
        logger.warning("%s is not used, the epoch's clusters are drawn anew: %s", path, differences)
    return clusters if not changed and int(metadata["num_updates"]) <= num_updates else None


def digest(clusters: Int[np.ndarray, "C K"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(clusters).tobytes()).hexdigest()
