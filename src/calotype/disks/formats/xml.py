"""XML as a small tree, for what strangers send: no document type, no entities, nothing fetched, everything bounded."""

from typing import Final
from xml.parsers import expat

from msgspec import Struct

from calotype.errors import OvaRefused

MOST_DEPTH: Final = 32
MOST_ELEMENTS: Final = 10_000
MOST_ATTRIBUTES: Final = 64  # of one element


class Element(Struct, kw_only=True):
    """Names are (namespace, local name); of an attribute without a prefix the namespace is empty."""

    name: tuple[str, str]
    attributes: dict[tuple[str, str], str]
    children: list["Element"]
    text: str = ""  # directly inside, without blanks at either end

    def all(self, namespace: str, name: str) -> list["Element"]:
        return [child for child in self.children if child.name == (namespace, name)]


def parse(data: bytes) -> Element:
    """The root of a document in UTF-8. The caller bounds the length of `data`. Raises `OvaRefused`."""
    if not _is_utf_8(data):
        raise OvaRefused("the OVF is no XML in UTF-8")
    tree = _Tree()
    # The encoding is ours, not the document's: a declared one would choose a decoder.
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.EntityDeclHandler = _refuse_document_type
    parser.ExternalEntityRefHandler = _refuse_document_type
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise OvaRefused(f"the OVF is no well-formed XML (line {error.lineno})") from error
    return tree.root


class _Tree:
    def __init__(self) -> None:
        self.root = Element(name=("", ""), attributes={}, children=[])
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MOST_ELEMENTS or len(self._open) == MOST_DEPTH or len(attributes) > MOST_ATTRIBUTES:
            raise OvaRefused(
                f"the OVF is above a limit: {MOST_ELEMENTS} elements, {MOST_DEPTH} deep, {MOST_ATTRIBUTES} attributes"
            )
        element = Element(name=_split(name), attributes={_split(n): v for n, v in attributes.items()}, children=[])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._texts.append([])

    def end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def text(self, text: str) -> None:
        self._texts[-1].append(text)


def _is_utf_8(data: bytes) -> bool:
    """Without NUL, which the two-byte encodings have that a parser could take it for."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace, local


def _refuse_document_type(*_: object) -> int:
    raise OvaRefused("the OVF has a document type or entities, which are not taken")
