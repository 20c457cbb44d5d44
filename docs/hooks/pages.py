"""Pages: formulas become MathML, and nothing is loaded from other servers.

`pymdownx.arithmatex` finds the formulas and protects them from Markdown; `latex2mathml` turns
them into MathML, which every current browser renders natively.
"""

import html
import logging
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.pages")  # a warning fails a strict build

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# What a browser fetches when it opens the page; this excludes links for the reader to follow.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed)\b[^>]*?\bsrc\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*?\bhref\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"'\s)]+)",
    re.IGNORECASE,
)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its formulas as MathML."""
    return with_mathml(content, page.file.src_uri)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn about anything the page would fetch from another server."""
    for address in fetched(output):
        log.warning("%s fetches %s: the site must work offline", page.file.src_uri, address)
    return output


def with_mathml(content: str, source: str) -> str:
    """`content` with arithmatex's formulas as MathML; warns about any that cannot be converted."""

    def formula(match: re.Match) -> str:
        display = "block" if match[1] == "div" else "inline"
        latex = html.unescape(match[2]).strip()
        try:
            drawn = convert(latex, display=display)
        except Exception as error:  # latex2mathml's errors share no base class
            log.warning("%s: no formula: %s (%s)", source, latex, type(error).__name__)
            return match[0]
        if unknown := re.search(r">(\\[a-zA-Z]+)", drawn):  # unknown commands are passed through
            log.warning("%s: %s is unknown in %s", source, unknown[1], latex)
        return drawn

    return _FORMULA.sub(formula, content)


def fetched(output: str) -> list[str]:
    """Addresses on other servers that a browser fetches when it opens the page."""
    return [next(filter(None, groups)) for groups in _FETCHED.findall(output)]
