"""Idiomatic English in documentation, docstrings, comments and messages: phrases to avoid."""

import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs",
    "slams_jax",
    "experiments",
    "configs",
)
SUFFIXES = (".md", ".py", ".html")

# Phrase -> what to write instead.
AVOID = {
    "a hair of": "a small",
    "can be had": "is available",
    "fmt: skip": "a name or a shorter expression",
    "decides everything": "what it decides",
    "for ever": "forever",
    "gaussian picture": "Gaussian approximation",
    "gone on with": "resumed",
    "has no meaning for": "has no effect with",
    "is to be had": "is available",
    "may be jitted": "can be jitted",
    "nothing else is to be known": "that is all you need to know",
    "reads back other": "its contents differ from what was written",
    "tell much": "are informative",
    "tells much": "is informative",
    "to the same bits": "bit for bit",
    "whole or absent": "complete or absent",
    "whole or not at all": "complete or absent",
    "written anew": "overwritten",
}

# Also, on pages, in tutorials and in the changelog:
AVOID_ON_PAGES = {
    "anew": "again",
    "be known that": "(leave it out)",
    "held against": "compared with",
    "is said of": "the message",
    "likewise": "what it is",
    "of one's own": "your own",
    "on paper": "in theory",
    "other than written": "differ from what was written",
    "out of turn": "early",
    "that lack": "missing",
}


@functools.cache
def pattern(phrase):
    """A phrase in any case; comment signs, quotes and line breaks may separate its words."""
    return re.compile(r"\b" + r"[\s#\"]+".join(map(re.escape, phrase.split())) + r"\b", re.I)


def findings(text, name):
    """A line for each phrase to avoid in a text."""
    page = name.endswith(".md") or name.startswith("docs/tutorials/")
    avoid = AVOID | AVOID_ON_PAGES if page else AVOID
    for phrase, instead in avoid.items():
        for match in pattern(phrase).finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: instead of {phrase!r} write {instead!r}"


def texts():
    """(name, text) of every page and module."""
    for place in PLACES:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in SUFFIXES:
                yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")


def test_texts_avoid_unidiomatic_phrases():
    lines = [line for name, text in texts() for line in findings(text, name)]
    assert not lines, "\n".join(lines)


def test_a_phrase_is_found_across_lines():
    text = 'one\n    # which tells\n    # much of\n    "it is whole "\n    "or absent"\n'
    assert list(findings(text, "page.md")) == [
        "page.md:2: instead of 'tells much' write 'is informative'",
        "page.md:4: instead of 'whole or absent' write 'complete or absent'",
    ]
