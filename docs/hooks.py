"""mkdocs hook: the reference pages, made from the code when the site is built and kept in memory.

mkdocs.yml names it under `hooks`, and the pages in `nav`: reference/cli.md and
reference/configuration.md. The Python that builds the site needs the package's dependencies.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[1]))


def on_files(files: Files, config: Any) -> Files:
    """The site's files and the reference pages; a file of the same name is an error of mkdocs."""
    for name, text in reference_pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def reference_pages() -> dict[str, str]:
    """Name -> Markdown."""
    from mmpt_plugin import reference
    from mmpt_plugin.cli import parser

    level, handlers = logging.root.level, [*logging.root.handlers]
    pages = {
        "cli": reference.command_page(parser()),
        "configuration": reference.configuration_page(),
    }
    logging.root.level, logging.root.handlers = level, handlers  # which fairseq changes when it is imported
    return pages
