"""MkDocs hook: the reference pages. This is a stub, which a generator from the code replaces."""

from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {"cli": "Command line", "configuration": "Configuration", "python": "Python"}


def on_files(files: Files, config: Any) -> Files:
    for name, title in PAGES.items():
        page = f"reference/{name}.md"
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=f"# {title}\n"))
    return files
