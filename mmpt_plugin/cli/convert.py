"""`mmpt convert`: convert a checkpoint to a folder with safetensors and config.json."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands, add_model_settings, model_of
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "convert", help="convert a released or fairseq checkpoint to safetensors and config.json"
    )
    command.add_argument("checkpoint", type=Path, help="a checkpoint file, or a folder of from_pretrained")
    command.add_argument("--out", type=Path, required=True, help="the output folder, for VideoCLIP.from_pretrained")
    add_model_settings(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.models.embedding import build_encoder
    from mmpt_plugin.models.pretrained import with_absolute_paths

    model = model_of(arguments)
    if arguments.encoder and model.encoder is not None:
        model.check_encoder(build_encoder(model.encoder))
        model.encoder = with_absolute_paths(model.encoder)
    model.save_pretrained(arguments.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokenizer = "with its tokenizer" if model.tokenizer is not None else "without a tokenizer (--tokenizer adds one)"
    say(f"wrote {arguments.out}: {parameters:,} parameters, {tokenizer}")
    if model.encoder is not None:
        settings = ", ".join(f"{key} {value}" for key, value in model.encoder.items() if key != "_name")
        say(f"encoder {model.encoder['_name']}, saved by reference, not copied: {settings or 'no files'}")
