"""Pages: formulas as MathML, and nothing from other servers.

`pymdownx.arithmatex` finds the formulas and keeps Markdown away from them; `latex2mathml` turns
them into MathML, which every browser of today draws by itself.
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
# What a browser would fetch when it opens the page; links that a reader follows are none of it.
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
    """Warn of what the page would fetch from another server."""
    for address in fetched(output):
        log.warning("%s fetches %s: the site must work offline", page.file.src_uri, address)
    return output


def with_mathml(content: str, source: str) -> str:
    """`content` with the formulas that arithmatex marked as MathML; warns of those it cannot."""

    def formula(match: re.Match) -> str:
        display = "block" if match[1] == "div" else "inline"
        latex = html.unescape(match[2]).strip()
        try:
            drawn = convert(latex, display=display)
        except Exception as error:  # latex2mathml's errors share no class of their own
            log.warning("%s: no formula: %s (%s)", source, latex, type(error).__name__)
            return match[0]
        if unknown := re.search(r">(\\[a-zA-Z]+)", drawn):  # it writes what it does not know
            log.warning("%s: %s is unknown in %s", source, unknown[1], latex)
        return drawn

    return _FORMULA.sub(formula, content)


def fetched(output: str) -> list[str]:
    """Addresses on other servers that a browser fetches when it opens the page."""
    return [next(filter(None, groups)) for groups in _FETCHED.findall(output)]
