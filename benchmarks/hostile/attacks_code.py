"""Attacks that hide code: in pickles, YAML, and the files of Hydra and OmegaConf."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.hostile.attacks import ATTACKS, Attack, Code, attack, copied, in_yaml
from benchmarks.hostile.cases import CANARY, SECRET
from benchmarks.hostile.formats import FORMATS, convert, embed_text, shard_captions, shard_features

# Pickles.


@attack
def pickle_as_checkpoint(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": {"x": torch.zeros(2)}, "extra": Code(folder)}, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt is not read")


@attack
def pickle_as_old_checkpoint(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": Code(folder)}, folder / "ours.pt", _use_new_zipfile_serialization=False)
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt")


@attack
def pickle_in_a_torchscript_archive(seeds: Path, folder: Path) -> Attack:
    with zipfile.ZipFile(seeds / "checkpoints" / "archive.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(folder / "archive.pt", "w") as target:
        for name, content in members.items():
            hidden = name.endswith(("data.pkl", "constants.pkl"))
            target.writestr(name, pickle.dumps(Code(folder), protocol=2) if hidden else content)
    return Attack(convert(seeds, folder / "archive.pt"), "archive.pt")


@attack
def pickle_as_weights_of_a_model_folder(seeds: Path, folder: Path) -> Attack:
    path = copied("model_folder", seeds, folder)
    for name in ("model.safetensors", "pytorch_model.bin", "training_args.bin"):
        torch.save({"x": Code(folder)}, path / name)
    return Attack(embed_text(seeds, path), str(path))


@attack
def pickle_as_encoder_weights(seeds: Path, folder: Path) -> Attack:
    torch.save({"x": Code(folder)}, folder / "s3d.pth")
    encoder = f"{{_name: s3d, weights: {folder / 's3d.pth'}}}"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"], "s3d.pth is not read")


@attack
def pickle_as_clip_folder(seeds: Path, folder: Path) -> Attack:
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(folder / "clip")
    torch.save({"x": Code(folder)}, folder / "clip" / "pytorch_model.bin")
    encoder = f"{{_name: clip, weights: {folder / 'clip'}}}"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"], "clip")


@attack
def pickle_as_bert_folder(seeds: Path, folder: Path) -> Attack:
    (folder / "bert").mkdir()
    about = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    (folder / "bert" / "config.json").write_text(json.dumps(about))
    torch.save({"x": Code(folder)}, folder / "bert" / "pytorch_model.bin")
    return Attack(["doctor", seeds / "yaml" / "training.yaml", f"model.bert={folder / 'bert'}"], "bert")


@attack
def pickle_as_checkpoint_to_train_further(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": {}, "x": Code(folder)}, folder / "c.pt")
    return Attack(
        ["doctor", seeds / "yaml" / "training.yaml", f"model.pretrained={folder / 'c.pt'}"], "c.pt is not read"
    )


@attack
def pickle_as_last_checkpoint_of_a_run(seeds: Path, folder: Path) -> Attack:
    (folder / "run").mkdir()
    torch.save({"model": {}, "x": Code(folder)}, folder / "run" / "checkpoint_last.pt")
    shutil.copy(seeds / "run" / "project.yaml", folder / "run")
    return Attack(["doctor", seeds / "yaml" / "training.yaml", f"checkpoint.save_dir={folder / 'run'}"])


@attack
def pickle_as_captions(seeds: Path, folder: Path) -> Attack:
    (folder / "raw.pickle").write_bytes(pickle.dumps({"v": Code(folder)}))
    return Attack(shard_captions(seeds, folder / "raw.pickle"), r"raw.pickle is not a pickle of plain")


@attack
def pickle_as_msvd(seeds: Path, folder: Path) -> Attack:
    path = copied("corpus_msvd_pickle", seeds, folder)
    (path / "a.pkl").write_bytes(pickle.dumps({"x_1_9": Code(folder)}))
    return Attack(FORMATS["corpus_msvd_pickle"].words(seeds, path), "a.pkl is not a pickle of plain")


@attack
def pickle_as_original_shards(seeds: Path, folder: Path) -> Attack:
    path = copied("original_shards", seeds, folder)
    (path / "train_meta.pkl").write_bytes(pickle.dumps({0: Code(folder)}))
    return Attack(FORMATS["original_shards"].words(seeds, path), "train_meta.pkl is not a pickle of plain")


@attack
def objects_as_features(seeds: Path, folder: Path) -> Attack:
    path = copied("features", seeds, folder)
    np.save(path / "v.npy", np.array([[Code(folder)]], dtype=object), allow_pickle=True)
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def pickle_as_features(seeds: Path, folder: Path) -> Attack:
    path = copied("features", seeds, folder)
    (path / "v.npy").write_bytes(pickle.dumps(Code(folder)))
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def objects_as_archive_of_features(seeds: Path, folder: Path) -> Attack:
    path, buffer = copied("features", seeds, folder), io.BytesIO()
    np.savez(buffer, x=np.array([Code(folder)], dtype=object))
    (path / "v.npy").write_bytes(buffer.getvalue())
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def objects_as_original_arrays(seeds: Path, folder: Path) -> Attack:
    path = copied("original_shards", seeds, folder)
    np.save(path / "train_0_data.npy", np.array([Code(folder)], dtype=object), allow_pickle=True)
    return Attack(FORMATS["original_shards"].words(seeds, path), "train_0_data.npy can't be read")


@attack
def pickle_as_result_of_a_job(seeds: Path, folder: Path) -> Attack:
    logs = folder / "runs" / "r" / "slurm"
    logs.mkdir(parents=True)
    (logs / "1_0_result.pkl").write_bytes(pickle.dumps(Code(folder)))
    about = {"folder": str(logs.parent), "job_id": "1", "executor": "local", "tasks": 1, "logs": str(logs), "words": []}
    (logs.parent / "job.json").write_text(json.dumps(about))
    return Attack(["jobs", folder / "runs"], "1_0_result.pkl is not a pickle of plain")


@attack
def code_beside_a_tokenizer(seeds: Path, folder: Path) -> Attack:
    path = copied("bert_tokenizer", seeds, folder)
    about = json.loads((path / "tokenizer_config.json").read_text())
    about |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    (path / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\nclass Evil: pass\n")
    return Attack(FORMATS["bert_tokenizer"].words(seeds, path))


# YAML, Hydra and OmegaConf.


def yaml_attacks() -> Iterator[tuple[str, str, str]]:
    tag = "\nx: !!python/object/apply:os.system ['touch canary']\n"
    target = "\nx: {_target_: os.system, command: 'touch canary'}\n"
    for name in ("project", "training", "task", "profile", "run"):
        yield f"python_object_in_{name}", name, tag
        yield f"python_name_in_{name}", name, tag.replace("object/apply:os.system", "name:os.system")
        yield f"target_in_{name}", name, target
        yield f"aliases_that_explode_in_{name}", name, explosion()
        yield f"interpolations_that_multiply_in_{name}", name, multiplied()
        yield f"depth_in_{name}", name, f"\nx: {'[' * 5000}{']' * 5000}\n"
        yield f"million_lines_in_{name}", name, "".join(f"\nx{i}: 1" for i in range(200_000))
        yield f"secret_in_{name}", name, "\nx: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "secret_in_test_set", "task", "\ntest_set: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "secret_by_a_made_up_resolver", "task", "\na: oc.env\ntest_set: '${${a}:MMPT_TEST_SECRET}'\n"
    yield "secret_in_partition", "profile", "\npartition: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "target_as_name", "task", "\n_name: os.system\n"
    yield "module_in_search_path", "project", "\nhydra: {searchpath: ['pkg://antigravity', 'pkg://canary_module']}\n"


def explosion() -> str:
    """Each line has the one before nine times: 9 to the power of 12 values."""
    lines = [f"\na0: &a0 [{', '.join('x' * 9)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 13)]
    return "\n".join(lines) + "\n"


def multiplied() -> str:
    """Each value has the one before twice: 2 to the power of 40 characters, of which the name of the run is one."""
    lines = ["\nm0: xx", *(f"m{i}: ${{m{i - 1}}}${{m{i - 1}}}" for i in range(1, 40))]
    return "\n".join([*lines, "test_set: ${m39}", "partition: ${m39}"]) + "\n"


def add_yaml_attacks() -> None:
    for title, name, text in yaml_attacks():

        def make(seeds: Path, folder: Path, name: str = name, text: str = text) -> Attack:
            made = in_yaml(seeds, folder, name, text)
            return Attack(made.words, environment=("MMPT_TEST_SECRET", SECRET))

        ATTACKS[title] = make


add_yaml_attacks()


@attack
def user_directory_of_a_project(seeds: Path, folder: Path) -> Attack:
    (folder / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
    text = f"\ncommon: {{user_dir: {folder / 'evil.py'}}}\n"
    return Attack(
        in_yaml(seeds, folder, "training", text).words, "training.yaml' would run the code in common.user_dir"
    )


@attack
def user_directory_of_a_checkpoint(seeds: Path, folder: Path) -> Attack:
    (folder / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
    content = torch.load(seeds / "checkpoints" / "ours.pt", weights_only=False)  # of our own making
    content["cfg"]["common"] = {"user_dir": str(folder / "evil.py")}
    content["cfg"]["model"] = {"_name": "evil"}
    torch.save(content, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt contains a model 'evil'")


@attack
def python_object_as_encoder(seeds: Path, folder: Path) -> Attack:
    encoder = "!!python/object/apply:os.system ['touch canary']"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"])


@attack
def python_object_in_a_checkpoint(seeds: Path, folder: Path) -> Attack:
    content = torch.load(seeds / "checkpoints" / "ours.pt", weights_only=False)  # of our own making
    content["cfg"]["model"]["encoder"] = "!!python/object/apply:os.system ['touch canary']"
    content["cfg"]["model"]["frames"] = "!!python/object/apply:os.system ['touch canary']"
    torch.save(content, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"))
