"""MkDocs hook: pages of the site that are Markdown files elsewhere in the repository, with their links adapted."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "tasks/README.md": "reference/tasks.md",
    "projects/README.md": "reference/projects.md",
    "slurm/README.md": "reference/profiles.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        content = LINK.sub(lambda link, source=source, page=page: f"]({moved(link[1], source, page)}", text)
        files.append(File.generated(config, page, content=content))
    return files


def moved(link: str, source: str, page: str) -> str:
    """A link of the file `source`, as the site's `page` has to write it."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    target = PAGES.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
