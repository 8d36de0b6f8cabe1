"""The licenses of the locked dependencies, as their own metadata state them.

python -m tests.licenses prints the table of docs/reference/licenses.md
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC"),
    *("LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
}
WEAK_COPYLEFT = {"MPL-2.0"}  # changes of its files are shared; programs that use them may have any license
SPELLINGS = {
    r"apache": "Apache-2.0",
    r"mozilla": "MPL-2.0",
    r"python software foundation": "PSF-2.0",
    r"bsd": "BSD-3-Clause",
    r"isc\b": "ISC",
    r"mit\b": "MIT",
}


def locked(name: str) -> dict[str, str]:
    """Package -> version in requirements/{name}.txt."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))


def installed() -> Iterator[Distribution]:
    """The locked packages in their locked versions; those of other platforms or Python versions are not here."""
    for name, version in sorted((locked("test") | locked("fairseq")).items()):
        with suppress(PackageNotFoundError):
            if distribution(name).version == version:
                yield distribution(name)


def row(package: Distribution) -> str:
    """A package's row of the table."""
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    purpose = "demo and tests" if name in locked("demo") | locked("fairseq") else "tests"
    return f"| {name} | {license_of(package)} | {purpose} |"


def license_of(package: Distribution) -> str:
    """The SPDX expression of a package; ValueError if it states no license."""
    about = package.metadata
    classifiers = [line for line in about.get_all("Classifier", []) if line.startswith("License :: ")]
    if stated := about.get("License-Expression"):
        return stated
    if classifiers:
        return " AND ".join(dict.fromkeys(spelled(line) for line in classifiers))
    short = about.get("License") or "UNKNOWN"
    if short != "UNKNOWN":
        return " AND ".join(spelled(part) for part in short.split("\n")[0].split(" AND "))
    files = [file for file in package.files or () if file.name.upper().startswith("LICENSE")]
    if not files:
        raise ValueError(f"{package.name} states no license")
    return spelled(files[0].read_text(encoding="utf-8")[:200])


def spelled(text: str) -> str:
    """The SPDX identifier of a license's name, or the name itself."""
    text = text.strip()
    if text in PERMISSIVE | WEAK_COPYLEFT:
        return text
    return next((identifier for pattern, identifier in SPELLINGS.items() if re.search(pattern, text, re.I)), text)


if __name__ == "__main__":
    print("\n".join(map(row, installed())))  # noqa: T201
