"""What holds for every HTML report."""

import html.parser
import re


class Page(html.parser.HTMLParser):
    """The tags of a page and what is wrong with their nesting."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def check_page(text):
    """What holds for every report: complete, nothing from elsewhere, all that access needs."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == 1
    assert not page.named("link") + page.named("iframe")
    assert [a for a in page.named("script") if a] == []
    assert not re.search(r"(?:https?:)?//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    for image in page.named("img"):
        assert image["src"].startswith("data:image/png;base64,iVBOR")
        assert len(image["alt"]) > 20
    targets = {a["href"] for a in page.named("a")}
    assert targets == {f"#{a['id']}" for a in page.named("h2")}
    policy = next(a for a in page.named("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")
    assert len(text) < 10_000_000
    return page
