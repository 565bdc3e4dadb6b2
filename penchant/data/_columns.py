"""Columns of a file as ids, text, numbers and money."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.data._source_chunks import to_json

MAX_ID_BYTES = 512
_NUMERIC = (
    r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*$|^\s*[-+]?(nan|NaN|inf|Inf|Infinity|-Infinity)\s*$"
)
_MONEY = re.compile(r"^(?P<before>[^\d.,+-]*)(?P<sign>[-+]?)(?P<digits>[\d.,' \u00a0]+)(?P<after>\D*)$")
_SYMBOLS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY", "₹": "INR", "₩": "KRW", "₽": "RUB"}
_DAMAGE = "\ufffd|\u00c3[\u0080-\u00bf\u0192\u2018-\u203a\u20ac\u2122]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]"
_damage = re.compile(_DAMAGE)


@dataclass
class Notes:
    """What was seen and mended on the way without refusing a row: counts, and a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, code: str, count: int, examples: list[str] | None = None) -> None:
        """Count something; keeps at most five examples."""
        if not count:
            return
        self.counts[code] += count
        kept = self.examples.setdefault(code, [])
        for example in examples or []:
            if len(kept) < 5 and example not in kept:
                kept.append(example[:120])


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array without dictionary encoding."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def texts(column: pa.Array) -> pa.Array:
    """Any column as text, (rows,) string; empty text is null; lists and structs become JSON."""
    kind = column.type
    if pa.types.is_string(kind):
        text = column
    elif pa.types.is_nested(kind):
        text = pa.array([None if v is None else to_json(v) for v in column.to_pylist()], pa.string())
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        text = _whole_numbers(column)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raw = column.to_pylist()
        text = pa.array([None if v is None else v.decode("utf-8", "replace") for v in raw], pa.string())
    else:
        text = pc.cast(column, pa.string())
    empty = pc.equal(pc.binary_length(text), 0)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text) if pc.any(empty).as_py() else text


def _whole_numbers(column: pa.Array) -> pa.Array:
    values = pc.cast(column, pa.float64(), safe=False)
    whole = pc.and_(pc.is_finite(values), pc.less(pc.abs(values), 1e15))
    whole = pc.and_kleene(whole, pc.equal(pc.floor(values), values))
    if pc.all(whole).as_py() is not False:
        return pc.cast(pc.cast(values, pa.int64(), safe=False), pa.string())
    return pc.cast(column, pa.string())


def ids(column: pa.Array, notes: Notes, *, integer: bool = False, secret: bool = True) -> pa.Array:
    """A column as ids: text without blanks around it, in Unicode form NFC; blank is null.

    ``secret`` ids (of people) never appear among the examples.
    """
    text = texts(column)
    bare = pc.utf8_trim_whitespace(text)
    if (pc.sum(pc.binary_length(bare)).as_py() or 0) != (pc.sum(pc.binary_length(text)).as_py() or 0):
        changed = pc.fill_null(pc.not_equal(bare, text), False)
        blank = pc.equal(pc.binary_length(bare), 0)
        notes.add("ids_trimmed", pc.sum(pc.and_kleene(changed, pc.invert(blank))).as_py() or 0)
        bare = pc.if_else(blank, pa.scalar(None, pa.string()), bare)
    if integer:
        bare = pc.replace_substring_regex(bare, r"^(\d+)\.0+$", r"\1")
    if pc.all(pc.string_is_ascii(bare)).as_py() is False:
        composed = pc.utf8_normalize(bare, form="NFC")
        notes.add("ids_composed", pc.sum(pc.not_equal(composed, bare)).as_py() or 0)
        bare = composed
        note_damage(bare, notes, secret=secret)
    return bare


def clean_id(text: str | None) -> str | None:
    """One id as ``ids`` makes it.

    Example:
        >>> clean_id(" e\\u0301 ") == "\\xe9", clean_id("  ")
        (True, None)
    """
    return (unicodedata.normalize("NFC", text.strip(_WHITESPACE)) or None) if text is not None else None


# What Arrow's utf8_trim_whitespace removes: the characters that Unicode calls white space.
_WHITESPACE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())


def note_damage(text: pa.Array, notes: Notes, *, secret: bool = False) -> None:
    """Count text that was decoded wrongly once; say whether it could be mended with certainty."""
    if pc.all(pc.string_is_ascii(text)).as_py() is not False:
        return
    hurt = text.filter(pc.fill_null(pc.match_substring_regex(text, _DAMAGE), False))
    if len(hurt):
        some = hurt.slice(0, 5).to_pylist()
        notes.add("encoding_damage", len(hurt), [] if secret else [_with_repair(t) for t in some])


def is_damaged(text: str) -> bool:
    """Whether a text shows signs of a wrong decoding: U+FFFD, or pairs such as Ã©."""
    return _damage.search(text) is not None


def _with_repair(text: str) -> str:
    mended = repaired(text)
    return f"{text!r} (surely {mended!r})" if mended else f"{text!r} (lost)"


def repaired(text: str) -> str | None:
    """What a wrongly decoded text was, when that is certain: it must read as UTF-8 without a rest.

    Example:
        >>> repaired("CafÃ©"), repaired("Caf\\ufffd")
        ('Café', None)
    """
    for encoding in ("cp1252", "latin-1"):
        try:
            mended = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return mended if mended != text else None
    return None


def numbers(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A column as (rows,) float64, and (rows,) bool: true where there is something that is no number.

    NaN and infinities stay, for the rules to refuse. Text may use a decimal comma and carry a currency.
    """
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_nested(kind) or pa.types.is_temporal(kind):
        return pa.nulls(len(column), pa.float64()), column.is_valid()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pc.cast(column, pa.float64(), safe=False), pa.array(np.zeros(len(column), bool))
    text = texts(pc.cast(column, pa.string()))
    fits = pc.fill_null(pc.match_substring_regex(text, _NUMERIC), False)
    none = pa.scalar(None, pa.string())
    values = pc.cast(pc.utf8_trim_whitespace(pc.if_else(fits, text, none)), pa.float64())
    rest = pc.and_(text.is_valid(), pc.invert(fits))
    if not pc.any(rest).as_py():
        return values, rest
    out = values.to_pylist()
    bad = np.zeros(len(out), bool)
    for at in np.flatnonzero(rest.to_numpy(zero_copy_only=False)):
        amount, _ = parse_money(text[int(at)].as_py())
        out[at], bad[at] = amount, amount is None
    return pa.array(out, pa.float64()), pa.array(bad)


def parse_money(text: str) -> tuple[float | None, str | None]:
    """An amount and its currency from text such as ``15.00 USD``, ``€2,50`` or ``1.234,00``.

    Example:
        >>> parse_money("15.00 USD"), parse_money("€2,50"), parse_money("1,234.5"), parse_money("cheap")
        ((15.0, 'USD'), (2.5, 'EUR'), (1234.5, None), (None, None))
    """
    match = _MONEY.match(text.strip())
    if match is None:
        return None, None
    digits = re.sub(r"[' \u00a0]", "", match["digits"])
    comma, point = digits.rfind(","), digits.rfind(".")
    if comma > point and (point >= 0 or len(digits) - comma - 1 != 3):
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    word = (match["before"] + match["after"]).strip().upper()
    currency = _SYMBOLS.get(word) or (word if re.fullmatch("[A-Z]{3}", word) else None)
    if word and currency is None:
        return None, None
    try:
        return float(Decimal(match["sign"] + digits)), currency
    except InvalidOperation:
        return None, None
