"""Builds the documentation: first the pages made from the code, then the site.

python docs/build.py             write docs/reference and build the site into build/site
python docs/build.py --pages     write docs/reference only
python docs/build.py --check     fail if a committed page differs from the code
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from penchant.surfaces import reference_pages

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def pages() -> dict[str, str]:
    """Every page that is made from the code or from other pages: file name -> Markdown."""
    return {**reference_pages(), "decisions.md": decisions()}


def decisions() -> str:
    """The list of decision records."""
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = [(path.name, path.read_text("utf-8").splitlines()[0].lstrip("# ")) for path in records]
    lines = [f"- [{title}](../decisions/{name})" for name, title in titles]
    return "# Decisions\n\nWhy things are as they are, one page each.\n\n" + "\n".join(lines) + "\n"


def stale() -> list[str]:
    """Names of pages whose committed text differs from what the code says now."""
    made = pages()
    there = {path.name for path in REFERENCE.glob("*.md")}
    differing = {name for name, text in made.items() if name in there and _read(name) != text}
    return sorted(differing | (there ^ made.keys()))


def _read(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def write() -> None:
    """Write the pages that changed, and remove those that are no more."""
    REFERENCE.mkdir(exist_ok=True)
    made = pages()
    for path in REFERENCE.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name in stale():
        if name in made:
            (REFERENCE / name).write_text(made[name], "utf-8")
            sys.stdout.write(f"wrote docs/reference/{name}" + "\n")


def build() -> int:
    """Build the site; a broken link or a page that does not exist is an error."""
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        mkdocs_build(load_config(str(ROOT / "mkdocs.yml"), strict=True))
    except Abort:
        return 1
    sys.stdout.write(f"the site is in {ROOT / 'build' / 'site'}" + "\n")
    return 0


def main(arguments: list[str]) -> int:
    """Run the program; gives the exit code."""
    if "--check" in arguments:
        for name in stale():
            sys.stdout.write(
                f"docs/reference/{name} is not what the code says: run `python docs/build.py --pages`" + "\n"
            )
        return 1 if stale() else 0
    write()
    return 0 if "--pages" in arguments else build()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
