"""Text from outside, made harmless for a terminal: no escape, no control character, no bidi trick gets through.

What is not shown as it is, is shown as Python would spell it: \\x1b, \\u202e. Lines and tabs stay in texts of several
lines; `line` leaves none of them either. Bytes that are not UTF-8 (an 8-bit CSI is one) become \\x9b.
"""

from __future__ import annotations

import codecs

# C0 without tab and newline, DEL, C1; marks and embeddings that reorder; separators that terminals may take for lines
_BAD = [*range(0x00, 0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F]
_BAD += [*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
_TABLE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    for code in _BAD
}
_LINE = {**_TABLE, 0x09: "\\t", 0x0A: "\\n"}


def text(data: str) -> str:
    """Several lines; \\r\\n is a line's end too."""
    return _without_surrogates(data.replace("\r\n", "\n").translate(_TABLE))


def line(data: object) -> str:
    """One line, whatever it holds."""
    text = str(data)
    return text if text.isascii() and text.isprintable() else _without_surrogates(text.translate(_LINE))


def _without_surrogates(data: str) -> str:
    return data if data.isascii() else data.encode("utf-8", "backslashreplace").decode()


class Stream:
    """Bytes of a log as they come, in pieces that may end anywhere, to harmless text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def feed(self, data: bytes, final: bool = False) -> str:
        decoded = self._held + self._decoder.decode(data, final)
        self._held = ""
        if decoded.endswith("\r") and not final:
            self._held, decoded = "\r", decoded[:-1]
        return text(decoded)
