"""What a test wants to know of an HTML page, read by the standard library's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})
"""Elements without an end. Source: HTML standard, section 13.1.2."""

_CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]?([^'\";]+)")
_URL_ATTRIBUTES = frozenset(
    {"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href"}
)


@dataclass
class Page(HTMLParser):
    """Elements, words and addresses of a page, in order."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads the page."""
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element that closes itself, as those of a drawing do."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Checks that the innermost element is the one that ends."""
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        """Notes words."""
        kept = self.styles if self._open[-1:] == ["style"] else self.words
        kept.append(data)

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str]]:
        """Returns the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def with_class(self, name: str) -> list[dict[str, str]]:
        """Returns the attributes of every element of a class."""
        return [a for _, a in self.elements if name in a.get("class", "").split()]

    @property
    def addresses(self) -> list[str]:
        """Everything that a browser could fetch, from attributes and styles."""
        named = [
            value
            for _, attributes in self.elements
            for name, value in attributes.items()
            if name in _URL_ATTRIBUTES
        ]
        inline = [attributes.get("style", "") for _, attributes in self.elements]
        css = [a or b for text in (*self.styles, *inline) for a, b in _CSS_URL.findall(text)]
        return named + css

    @property
    def leaving(self) -> list[str]:
        """Addresses outside the page: neither held in it nor one of its anchors."""
        return [a for a in self.addresses if not a.startswith(("data:", "#"))]
