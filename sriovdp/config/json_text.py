"""JSON text as a document, with faults in the words of people who write JSON: what is missing, and where.

Texts are read by Python's own decoder. Brackets, commas and colons are followed here, as only then a fault can name the
bracket that is open, and every entry has its line.
"""

import re
from bisect import bisect
from dataclasses import dataclass
from json import JSONDecodeError, decoder

from sriovdp.config.document import MAX_DEPTH, Document, KeyPath, Plain, resolve

_MEANT = re.compile(
    r"\s*(?:(?:#|//)[^\n]*\n\s*|/\*(?:(?!\*/).)*\*/\s*)*(?:\{\s*(?:[\"}/,]|$)|\[\s*(?:[\[{\"\]/,]|$))", re.DOTALL
)
_BLANK = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[^\s,:\[\]{}\"]+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_LITERALS: dict[str, Plain] = {"true": True, "false": False, "null": None}
_CLOSING = {"{": "}", "[": "]"}
_SHOWN = 40


def is_meant_as_json(text: str) -> bool:
    """Whether a text begins as JSON does. YAML in braces, like `{a: 1}`, does not."""
    return _MEANT.match(text) is not None


@dataclass
class JsonError(Exception):
    """A text is no JSON: `line` of the file and `column` from 1, and a sentence. `final`: YAML would misread it."""

    line: int
    column: int
    problem: str
    final: bool = False


def read_json(text: str, first: int = 1) -> Document:
    """Read JSON whose first line is this one of its file. Raises JsonError."""
    return _Reader(text, first).read()


class _Reader:
    def __init__(self, text: str, first: int) -> None:
        self.text = text
        self.first = first
        self.at = 0
        self.ended = 0  # where the last thing that was read ends
        self.document = Document(begin=first)
        self.open: list[int] = []  # where the brackets are that are open
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def read(self) -> Document:
        self.document.tree = self.read_value(())
        rest = self.peek()
        if rest in {"}", "]"}:
            raise self.fault(f"there is one '{rest}' too many; remove it")
        if rest:
            raise self.fault(f"{self.show()} stands after the end of the JSON; remove it, or the bracket before it")
        return self.document

    def line(self, at: int) -> int:
        return self.first - 1 + bisect(self.starts, at)

    def fault(self, problem: str, at: int | None = None) -> JsonError:
        at = at if at is not None else self.at if self.at < len(self.text) else self.ended
        line = self.line(at)
        return JsonError(line, at - self.starts[line - self.first] + 1, problem)

    def peek(self) -> str:
        """The next sign that is no blank; nothing at the end."""
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.text.startswith(("//", "/*"), self.at):
            fault = self.fault(f"{self.text[self.at : self.at + 2]} begins no comment here; write # in its place")
            fault.final = True
            raise fault
        return self.text[self.at : self.at + 1]

    def show(self) -> str:
        """What stands here, in a few characters."""
        match = _WORD.match(self.text, self.at)
        if self.peek() == '"':
            end = self.text.find('"', self.at + 1)
            return self.text[self.at : min(end + 1 if end > 0 else len(self.text), self.at + _SHOWN)].partition("\n")[0]
        return match[0][:_SHOWN] if match else f"'{self.peek()}'"

    def take(self, length: int) -> None:
        self.at = self.ended = self.at + length

    def read_value(self, path: KeyPath) -> Plain:
        sign = self.peek()
        if sign == '"':
            return self.read_text()
        if sign in _CLOSING and sign:
            if len(path) >= MAX_DEPTH:
                raise self.fault(f"nested deeper than {MAX_DEPTH}")
            self.open.append(self.at)
            self.take(1)
            value = self.read_object(path) if sign == "{" else self.read_list(path)
            self.open.pop()
            return value
        return self.read_word(sign)

    def read_text(self) -> str:
        begin = self.at
        try:
            value, end = decoder.scanstring(self.text, begin + 1)  # type: ignore[attr-defined]
        except JSONDecodeError as error:
            if "escape" in error.msg:
                raise self.fault("a backslash in a text is written as \\\\", error.pos) from None
            raise self.fault(f"the closing quote of {self.show()} is missing", begin) from None
        self.take(end - begin)
        return str(value)

    def read_word(self, sign: str) -> Plain:
        match = _WORD.match(self.text, self.at)
        word = match[0] if match else ""
        if word in _LITERALS:
            self.take(len(word))
            return _LITERALS[word]
        if _NUMBER.fullmatch(word):
            self.take(len(word))
            return resolve(word)
        fault = self.fault(self.explain_no_value(sign, word))
        fault.final = sign in {",", ":"}
        raise fault

    def explain_no_value(self, sign: str, word: str) -> str:
        if not sign:
            return self.explain_end()
        if word.lower() in _LITERALS:
            return f"{word} is written {word.lower()}"
        if word:
            return f"{word[:_SHOWN]} is no value; put text into double quotes"
        before = self.text[self.ended - 1 : self.ended]
        return f"a value is missing between '{before}' and '{sign}'" if before else f"'{sign}' begins no value"

    def explain_end(self) -> str:
        if not self.open:
            return "the text is empty"
        places = " and ".join(f"'{self.text[at]}' of line {self.line(at)}" for at in reversed(self.open[-3:]))
        wanted = "".join(_CLOSING[self.text[at]] for at in reversed(self.open))
        return (
            f"the text ends here, and {places} {'is' if len(self.open) == 1 else 'are'} not closed; {wanted} is missing"
        )

    def read_list(self, path: KeyPath) -> Plain:
        items: list[Plain] = []
        while not (not items and self.close("]")):
            place = (*path, len(items))
            self.peek()
            self.document.lines.setdefault(place, self.line(self.at))
            begin = self.at
            items.append(self.read_value(place))
            if self.peek() == ":" and isinstance(items[-1], str):
                raise self.fault(f"a '{{' is missing before the key {self.text[begin : self.ended][:_SHOWN]}", begin)
            if self.close("]"):
                break
            self.expect_comma("]")
        return items

    def read_object(self, path: KeyPath) -> Plain:
        entries: dict[str, Plain] = {}
        while not (not entries and self.close("}")):
            if self.peek() != '"':
                raise self.fault(self.explain_no_key())
            line, key = self.line(self.at), self.read_text()
            place = (*path, key)
            self.document.lines.setdefault(place, line)
            if self.peek() != ":":
                raise self.fault(f"a ':' is missing after the key {key[:_SHOWN]!r}", self.ended)
            self.take(1)
            value = self.read_value(place)
            if key in entries:
                self.document.duplicates.append((line, place))
            entries.setdefault(key, value)
            if self.close("}"):
                break
            self.expect_comma("}")
        return entries

    def explain_no_key(self) -> str:
        if not self.peek():
            return self.explain_end()
        if self.peek() == "}":
            return "a ',' stands before this '}'; remove the comma"
        return f"a key in double quotes is missing before {self.show()}"

    def close(self, bracket: str) -> bool:
        if self.peek() != bracket:
            return False
        self.take(1)
        return True

    def expect_comma(self, bracket: str) -> None:
        sign = self.peek()
        if sign == ",":
            self.take(1)
            return
        if not sign:
            raise self.fault(self.explain_end())
        if sign in {"}", "]"}:
            begin = self.open[-1]
            raise self.fault(
                f"'{sign}' stands here, and '{self.text[begin]}' of line {self.line(begin)} is open; "
                f"'{bracket}' is missing before it"
            )
        before = self.text[max(0, self.ended - _SHOWN) : self.ended].rpartition("\n")[2].strip()
        raise self.fault(f"a comma is missing after {before}", self.ended)
