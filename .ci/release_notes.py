"""Print the release notes of a tag: the section of its version in CHANGELOG.md.

    python .ci/release_notes.py [TAG]     # without TAG, the tag of the commit checked out

Fails where the tag is not v + the version of the library, or the changelog has no such section.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str, *, version: str, changelog: str) -> str:
    """The section of `tag` in `changelog`, without its heading.

    Raises:
        ValueError: the tag is not that of `version`, or its section is missing or empty.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but the version is {version}: expected v{version}")
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n"
    section = re.search(rf"{heading}(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if section is None or not section[1].strip():
        raise ValueError(
            f"CHANGELOG.md has no notes under '## {version} - YYYY-MM-DD': "
            "rename its section Unreleased"
        )
    return section[1].strip()


def current_version() -> str:
    """The version that the library says it has."""
    source = (ROOT / "slams_jax" / "__init__.py").read_text()
    return re.findall(r'^__version__ = "(.*)"$', source, re.M)[0]


def main() -> None:
    """Print the notes, or one line of what is wrong."""
    try:
        tag = sys.argv[1] if len(sys.argv) > 1 else _tag_here()
        changelog = (ROOT / "CHANGELOG.md").read_text()
        print(notes(tag, version=current_version(), changelog=changelog))
    except ValueError as error:
        sys.exit(f"error: {error}")


def _tag_here() -> str:
    found = subprocess.run(
        ["git", "describe", "--tags", "--exact-match"], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode:
        raise ValueError("no tag on this commit: tag it first, or name the tag")
    return found.stdout.strip()


if __name__ == "__main__":
    main()
