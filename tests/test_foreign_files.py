"""What a stranger's file may do: be read, or be refused in a line that names it. `test_hostile` has many more."""

import io
import json
import pickle
import resource
import shutil

import numpy as np
import pytest
import torch
from rich.table import Table

from mmpt_plugin import user_dir
from mmpt_plugin.checkpoint import check_weights
from mmpt_plugin.config import load_project
from mmpt_plugin.files import inside, parse_json, read_array
from mmpt_plugin.interpolations import check_interpolations, resolved_size
from mmpt_plugin.launch.profile import Profile, load_profile
from mmpt_plugin.launch.watch import Launched, failure, state
from mmpt_plugin.registry import models, parse_config
from mmpt_plugin.shards.caption_sources import from_columns
from mmpt_plugin.shards.captions import from_json
from mmpt_plugin.shards.format import ShardIndex
from mmpt_plugin.shards.mmpt_shards import ragged
from mmpt_plugin.shards.plain_pickle import read_plain_pickle
from mmpt_plugin.terminal import LONGEST, console, one_line, printable
from mmpt_plugin.tokenizer import load_tokenizer, tokenize
from mmpt_plugin.video.frame_cache import from_jpeg, to_jpeg
from mmpt_plugin.yaml_files import parse_yaml
from tests.models.released import GOLDEN


def test_nothing_that_is_printed_is_a_command_to_the_terminal():
    assert printable("\x1b[31mé\r\x07\u202e\udcff\n\t") == "\\x1b[31mé\\r\\x07\\u202e\\udcff\n\t"
    assert one_line("a\n  b\n") == "a b"
    assert len(one_line("x" * 10**5)) < LONGEST + 10
    file, table = io.StringIO(), Table(title="[red]t[/red]")
    table.add_row("[/]\x1b[2J")
    console(file=file, width=40).print(table)
    assert "[red]t[/red]" in file.getvalue()
    assert "[/]\\x1b[2J" in file.getvalue()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**5, "here: not valid JSON: it is nested too deep"),
        ("9" * 301, "here: an integer of 301 digits is too large"),
        (r'{"a": "\ud83d"}', "here: not valid JSON: it has half of a surrogate pair"),
        ("{", "here: not valid JSON: Expecting property name"),
    ],
)
def test_json_that_is_refused_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text, "here")


def test_json_of_others_that_is_unusual_is_read():
    """A tokenizer's `model_max_length`, and a path that is not UTF-8."""
    content = {"model_max_length": int(1e30), "source": "\udcff", "text": "\U0001f600"}
    assert parse_json(json.dumps(content), "here", names_of_files=True) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch x']", "here: not valid YAML: could not determine a constructor"),
        ("a:\n  - b: [", "here:2: not valid YAML"),
        ("[" * 60 + "]" * 60, "here is nested more than 50 deep"),
        ("x" * (2**20 + 1), "here has 1048577 characters"),
        ("a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(20)), "more than 100000"),
        ("a: &a [*a]", "here is nested more than 50 deep"),
        ("a: 2026-13-40", "here: not valid YAML: month must be in 1..12"),
    ],
)
def test_yaml_that_is_refused_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text, "here")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/.."])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}' leads out of {tmp_path}"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b..c") == tmp_path / "a" / "b..c"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 256, "'x{50}...' is too long for the name of a file"),
        ("é" * 128, "'é{50}...' is too long for the name of a file"),
        ("x/" * 2048, "'(x/){25}...' is too long for the name of a file"),
        ("a\ud83d", "can't be the name of a file: it has half of a surrogate pair"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        inside(tmp_path, name)
    for longest in ("x" * 255, "\udcff" * 255):  # 255 bytes that are not UTF-8
        assert not inside(tmp_path, longest).exists()


def test_half_of_a_surrogate_pair_is_no_text(tmp_path):
    columns = {"start": [0], "end": [1], "text": ["a\udcff"]}
    with pytest.raises(ValueError, match="captions a.json, v: a text has half of a surrogate pair"):
        from_columns(columns, "a.json, v")
    with pytest.raises(ValueError, match="a.jsonl:1: not valid JSON: it has half of a surrogate pair"):
        from_json(json.dumps({"start": 0, "end": 1, "text": "\udcff"}), "a.jsonl:1")
    tokenizer = load_tokenizer(str(GOLDEN / "tokenizer"))
    with pytest.raises(ValueError, match='text "a.*" has half of a surrogate pair'):
        tokenize(["a\udcff"], tokenizer)


def test_a_tokenizer_whose_ids_shards_cannot_hold_is_refused(tmp_path):
    vocabulary = json.loads((GOLDEN / "tokenizer" / "vocab.json").read_text())
    vocabulary[next(iter(vocabulary))] = 2**31
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    shutil.copy(GOLDEN / "tokenizer" / "merges.txt", tmp_path)
    with pytest.raises(ValueError, match=f"tokenizer '{tmp_path}' can't be used: its largest id is 2147483648"):
        load_tokenizer(str(tmp_path))


def test_arrays_of_objects_and_archives_of_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npy.npz", np.zeros(2))
    for name in ("a.npy", "b.npy.npz"):
        with pytest.raises(ValueError, match=f"{name} can't be read"):
            read_array(tmp_path / name)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(1).expand(10**6), r"f.pt: w is \(1000000,\), but the file has fewer numbers"),
        (torch.zeros(2, dtype=torch.complex64), "f.pt: w is a tensor of torch.strided, torch.complex64"),
        (torch.zeros(2, 2).to_sparse(), "f.pt: w is a tensor of torch.sparse_coo"),
        (torch.zeros(2, device="meta"), "f.pt: w is a tensor of .* on meta"),
        ([1], "f.pt: w is a list, expected a tensor"),
    ],
)
def test_what_is_not_a_weight_is_named(weight, message):
    with pytest.raises(ValueError, match=message):
        check_weights({"v": torch.zeros(2), "w": weight}, where="f.pt")


def test_a_cached_picture_of_another_size_is_not_decoded():
    content = to_jpeg(np.zeros((40, 24, 3), np.uint8), quality=90)
    with pytest.raises(ValueError, match="frame 3 of f has 24 x 40 pixels, expected 24 x 24"):
        from_jpeg(content, size=24, where="frame 3 of f")
    with pytest.raises(ValueError, match="frame 3 of f is not a JPEG"):
        from_jpeg(b"GIF89a", size=24, where="frame 3 of f")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The function writes a project with these lines, and returns its path."""
    monkeypatch.setenv(user_dir.VARIABLE, "")

    def write(lines):
        header = "# @package _global_\ndefaults: [/projects/videoclip/zeroshot@_global_, _self_]\n"
        (tmp_path / "p.yaml").write_text(header + lines)
        return str(tmp_path / "p.yaml")

    return write


def test_a_projects_file_runs_no_code_but_names_the_option_that_does(project, tmp_path):
    (tmp_path / "own_of_a_stranger.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    path = project(f"common: {{user_dir: {tmp_path / 'own_of_a_stranger.py'}}}\ncheckpoint: x\n")
    with pytest.raises(ValueError, match=r"would run the code in .*: if you trust it, name it yourself with"):
        load_project(path)
    assert not (tmp_path / "canary").exists()
    user_dir.load(tmp_path / "own_of_a_stranger.py")
    load_project(path)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("value", ["${oc.env:MMPT_SECRET}", "${${protocol}:MMPT_SECRET}"])
def test_files_do_not_read_the_environment(project, tmp_path, monkeypatch, value):
    monkeypatch.setenv("MMPT_SECRET", "secret")
    with pytest.raises(ValueError, match=r"files can't read environment variables: give key=\$NAME") as refused:
        load_project(project(f"checkpoint: '{value}'\nprotocol: oc.env\n"))
    assert "secret" not in str(refused.value)
    (tmp_path / "profile.yaml").write_text("partition: ${oc.env:MMPT_SECRET}\n")
    with pytest.raises(ValueError, match="files can't read environment variables"):
        load_profile(str(tmp_path / "profile.yaml"))


@pytest.mark.parametrize("lines", ["task: 3\n", "task: {dataset: x}\n", "checkpoint: {save_dir: [1]}\n"])
def test_a_section_of_another_type_is_named(project, lines):
    with pytest.raises(ValueError, match=r"p.yaml': ('task'|'task.dataset'|checkpoint.save_dir) must be a"):
        load_project(project(lines), ["checkpoint=x"] if "checkpoint" not in lines else [])


def test_the_result_of_a_job_is_not_unpickled(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    job = Launched(str(tmp_path), "1", "local", 1, str(tmp_path), [])
    (tmp_path / "1_0_result.pkl").write_bytes(pickle.dumps(("error", "Traceback\nKeyError: 'x'\n")))
    assert (state(job), failure(job, "FAILED")) == ("FAILED", "KeyError: 'x'")
    (tmp_path / "1_0_result.pkl").write_bytes(pickle.dumps(("success", Code())))
    with pytest.raises(ValueError, match=r"1_0_result.pkl is not a pickle of plain .*it needs builtins.print"):
        state(job)


@pytest.mark.parametrize(
    "step", ["${{a{0}}}${{a{0}}}", "${{.a{0}}}${{.a{0}}}", "${{oc.select:a{0}}}${{oc.select:a{0}}}"]
)
def test_interpolations_that_multiply_are_refused_before_they_are_resolved(step):
    values = {"a0": "xx"} | {f"a{i + 1}": step.format(i) for i in range(24)}
    with pytest.raises(ValueError, match="here: its interpolations make more than 1048576 characters"):
        check_interpolations(values, "here")
    check_interpolations({key: values[key] for key in list(values)[:12]}, "here")


def test_interpolations_are_counted_where_they_lead():
    """In lists, upwards, and to whole sections; the text that has the interpolation counts too."""
    values = {"a": {"b": ["abc", "${.0}xy"], "c": "${..a.b[0]}"}, "d": "${a.b}"}
    assert resolved_size(values, (), values, {}, "here") == 3 + (7 + 3) + (11 + 3) + (6 + 3 + 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": "oc.env", "b": "${${a}:HOME}"}, "here: an interpolation within another one"),
        ({f"a{i}": f"${{a{i + 1}}}" for i in range(60)}, "here is nested more than 50 deep"),
    ],
)
def test_interpolations_that_cannot_be_counted_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_interpolations(values, "here")
    check_interpolations({"a": "${b}", "b": "${a}", "c": "${gone}"}, "here")  # OmegaConf's errors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("setup", [{"a": 1}], "slurm.setup must hold single values"),
        ("setup", [["module load x"]], "slurm.setup must hold single values"),
    ],
)
def test_a_list_of_texts_holds_no_lists(key, value, message):
    with pytest.raises(ValueError, match=message):
        parse_config(Profile, {key: value}, "slurm")


@pytest.mark.parametrize(("name", "message"), [({"a": 1}, 'has {"a": 1} as _name'), (None, "has no _name")])
def test_a_component_is_named_by_a_text(name, message):
    with pytest.raises(ValueError, match=message):
        models.build({"_name": name})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3)), r"x_data.npy holds float64 of shape \(3, 3\), expected rows of 2 numbers"),
        (np.zeros(3), r"of shape \(3,\)"),
        (np.full((3, 2), "a"), r"holds <U1 of shape \(3, 2\)"),
    ],
)
def test_original_shards_of_other_arrays_are_named(tmp_path, array, message):
    np.save(tmp_path / "x_data.npy", array)
    np.save(tmp_path / "x_starts.npy", np.array([0, 3]))
    with pytest.raises(ValueError, match=message):
        ragged(tmp_path / "x", kinds="iuf", width=2)


def test_a_pickle_of_a_few_bytes_does_not_take_gigabytes(tmp_path):
    """CPython's unpickler in C makes room for as many entries as the largest index: 2^31 of 8 bytes."""
    path = tmp_path / "a.pickle"
    path.write_bytes(b"\x80\x04]r" + (2**31 - 1).to_bytes(4, "little") + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_plain_pickle(path) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


@pytest.mark.parametrize("width", [-1, 2**16 + 1, 10**40])
def test_an_index_of_shards_with_an_impossible_width_is_refused(width):
    with pytest.raises(ValueError, match="feature_dim must be 0 to 65536"):
        ShardIndex(feature_dim=width, encoder="e", tokenizer={"cls_id": 1, "sep_id": 2, "pad_id": 0}, shards=[])
