"""The files around the code: release notes, version, citation."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import slams_jax

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "release_notes.py"
CHANGELOG = """# Changelog

## Unreleased
### Added
- Something new.

## 1.2.0 - 2030-01-31
### Added
- A feature.

### Fixed
- A bug, see ## 1.2.0.

## 1.1.0 - 2029-12-01
- An older feature.

## 1.0.0 - 2029-11-01
"""


@pytest.fixture(scope="module")
def release_notes():
    spec = importlib.util.spec_from_file_location("release_notes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_release_notes_are_the_section_of_the_tag(release_notes):
    notes = release_notes.notes("v1.2.0", version="1.2.0", changelog=CHANGELOG)
    assert notes == "### Added\n- A feature.\n\n### Fixed\n- A bug, see ## 1.2.0."
    notes = release_notes.notes("v1.1.0", version="1.1.0", changelog=CHANGELOG)
    assert notes == "- An older feature."


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v1.2.0", "1.3.0", "the tag is v1.2.0, but the version is 1.3.0"),
        ("1.2.0", "1.2.0", "expected v1.2.0"),
        ("v1.3.0", "1.3.0", "no notes under '## 1.3.0"),
        ("v1.0.0", "1.0.0", "no notes under '## 1.0.0"),
        ("v1x2.0", "1x2.0", "no notes under '## 1x2.0"),
    ],
)
def test_tag_version_and_changelog_must_agree(release_notes, tag, version, message):
    with pytest.raises(ValueError, match=message):
        release_notes.notes(tag, version=version, changelog=CHANGELOG)


def test_release_notes_from_the_command_line(release_notes):
    assert release_notes.current_version() == slams_jax.__version__
    run = [sys.executable, SCRIPT, "v0.0.0"]
    result = subprocess.run(run, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: the tag is v0.0.0, but the version is ")
    assert result.stderr.count("\n") == 1


def test_the_changelog_begins_with_what_is_unreleased():
    headings = [x for x in (ROOT / "CHANGELOG.md").read_text().splitlines() if x[:3] == "## "]
    assert headings[0] == "## Unreleased"


def test_the_citation_is_of_this_version_and_of_the_paper_in_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == slams_jax.__version__
    paper, readme = citation["preferred-citation"], (ROOT / "README.md").read_text()
    assert paper["url"] in readme
    assert f"{{{paper['title']}}}" in readme
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert f"{{{names}}}" in readme
