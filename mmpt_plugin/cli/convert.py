"""`mmpt convert`: a checkpoint to a folder of safetensors and config.json."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands, add_model_settings, model_of


def add(commands: Commands) -> None:
    command = commands.add_parser("convert", help="a released or a fairseq checkpoint -> safetensors and config.json")
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--out", type=Path, required=True, help="a folder for VideoCLIP.from_pretrained")
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
    print(f"wrote {arguments.out}: {parameters:,} parameters, {tokenizer}")
    if model.encoder is not None:
        settings = ", ".join(f"{key} {value}" for key, value in model.encoder.items() if key != "_name")
        print(f"encoder {model.encoder['_name']}, which stays where it is: {settings or 'no files'}")
