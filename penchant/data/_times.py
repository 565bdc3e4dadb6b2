"""Times in any of their habits, as microseconds since 1970 UTC."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, SECOND
from penchant.core.errors import InputError

# Where a file has an order but no times, event n is put n seconds after this moment.
ORDINAL_START = 946_684_800 * SECOND  # 2000-01-01
_UNITS = {"s": 1_000_000.0, "ms": 1000.0, "us": 1.0, "ns": 0.001}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NUMBER = r"^\s*-?\d+(\.\d+)?\s*$"
_ZONED = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?Z$"
_NAIVE = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
_COMPACT_DAY = re.compile(r"^(19|20)\d{6}$")


def to_micros(column: pa.Array, form: str = "auto", timezone: str = "UTC") -> tuple[pa.Array, pa.Array]:
    """Read a column of times.

    Args:
        column: Timestamps, dates, numbers or text, (rows,).
        form: auto, iso, day, s, ms, us, ns, ordinal, or a format with ``%``. ``auto`` tells the unit of a
            number by its size: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds.
        timezone: Of times that do not name their own.

    Returns:
        (rows,) int64 microseconds, null where missing or unreadable; and (rows,) bool, true where unreadable.

    Example:
        >>> to_micros(pa.array(["1970-01-01T00:00:01Z", "86400", "soon", None]))[0].to_pylist()
        [1000000, 86400000000, None, None]
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if form == "ordinal":
        return _ordinals(column)
    if pa.types.is_timestamp(kind):
        return _timestamps(column, timezone), _never(column)
    if pa.types.is_date(kind):
        days = pc.cast(pc.cast(column, pa.date32()), pa.int32())
        return _local(pc.multiply(pc.cast(days, pa.int64()), DAY), timezone), _never(column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(column, form)
    return _texts(pc.cast(column, pa.string()), form, timezone)


def micros_of(value: Any) -> int | None:
    """One time, text or number or datetime, in microseconds; None when it cannot be read.

    Example:
        >>> micros_of("2024-01-01T00:00:00+01:00"), micros_of(1704067200), micros_of("soon")
        (1704063600000000, 1704067200000000, None)
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, dt.datetime):
        return _from_datetime(value)
    if isinstance(value, int | float):
        number = float(value)
        return None if not np.isfinite(number) else _by_size(value)
    text = str(value).strip()
    try:
        if re.fullmatch(r"-?\d+", text):
            return _by_size(int(text))
        return _from_datetime(dt.datetime.fromisoformat(re.sub(r" ?UTC$", "+00:00", text)))
    except (ValueError, OverflowError):
        return None


def zone(name: str) -> zoneinfo.ZoneInfo:
    """A time zone by name, as in ``Europe/Berlin``; ``InputError`` when there is none of that name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            "unknown time zone", value=name, hint="use a name such as Europe/Berlin or UTC"
        ) from error


def _by_size(number: float) -> int | None:
    size = abs(number)
    if size >= 1e20:
        return None
    if isinstance(number, int):
        if _COMPACT_DAY.match(str(number)):
            return _compact_day(str(number))
        return (
            number * SECOND
            if size < 1e11
            else number * 1000
            if size < 1e14
            else (number if size < 1e17 else number // 1000)
        )
    factor = 1e6 if size < 1e11 else 1e3 if size < 1e14 else 1.0 if size < 1e17 else 1e-3
    return round(number * factor)


def _compact_day(text: str) -> int | None:
    try:
        day = dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
    return (day - dt.date(1970, 1, 1)).days * DAY


def _from_datetime(value: dt.datetime, timezone: str = "UTC") -> int | None:
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone(timezone))
    return (value - _EPOCH) // dt.timedelta(microseconds=1)


def _never(column: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(column), bool))


def _local(micros: pa.Array, timezone: str) -> pa.Array:
    if timezone == "UTC":
        return micros
    zone(timezone)
    moments = pc.assume_timezone(
        pc.cast(micros, pa.timestamp("us")), timezone, ambiguous="earliest", nonexistent="latest"
    )
    return pc.cast(moments, pa.int64())


def _timestamps(column: pa.Array, timezone: str) -> pa.Array:
    micros = pc.cast(pc.cast(column, pa.timestamp("us", column.type.tz), safe=False), pa.int64())
    return micros if column.type.tz else _local(micros, timezone)


def _ordinals(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    values, bad = _floats(column)
    return pc.cast(
        pc.add(pc.multiply(pc.round(values), float(SECOND)), float(ORDINAL_START)), pa.int64()
    ), bad


def _floats(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        fits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
        bad = pc.and_(column.is_valid(), pc.invert(fits))
        column = pc.utf8_trim_whitespace(pc.if_else(fits, column, pa.scalar(None, column.type)))
    else:
        bad = _never(column)
    values = pc.cast(column, pa.float64(), safe=False)
    wild = pc.fill_null(pc.or_(pc.is_nan(values), pc.greater(pc.abs(values), 9e18)), False)
    return pc.if_else(wild, pa.scalar(None, pa.float64()), values), pc.or_(bad, wild)


def _numbers(column: pa.Array, form: str) -> tuple[pa.Array, pa.Array]:
    if form in {"us", "auto"} and pa.types.is_integer(column.type):
        column = pc.cast(column, pa.int64(), safe=False)
        lowest = pc.min(column).as_py()
        if form == "us" or (lowest is not None and lowest >= 10**14 and pc.max(column).as_py() < 10**17):
            return column, _never(column)
    values, bad = _floats(column)
    numbers = values.to_numpy(zero_copy_only=False)  # NaN where null
    known = ~np.isnan(numbers)
    numbers = np.where(known, numbers, 0.0)
    if form == "day":
        micros = np.array([_compact_day(f"{int(n):08d}") or 0 for n in numbers], np.int64)
        return pa.array(micros, mask=~known), bad
    if form in _UNITS:
        scaled = numbers * _UNITS[form]
    else:
        size = np.abs(numbers)
        scaled = numbers * np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
        days = known & (numbers >= 19_000_101) & (numbers <= 20_991_231)
        for at in np.flatnonzero(days):
            scaled[at] = _compact_day(str(int(numbers[at]))) or scaled[at]
    far = np.abs(scaled) > 9e18
    micros = np.where(known & ~far, scaled, 0.0).round().astype(np.int64)
    return pa.array(micros, mask=~known | far), pc.or_(bad, pa.array(far))


def _texts(column: pa.Array, form: str, timezone: str) -> tuple[pa.Array, pa.Array]:
    if "%" in form:
        return _formatted(column, form, timezone)
    if form in {*_UNITS, "day"} and not pc.any(pc.match_substring(column, "-")).as_py():
        return _numbers_in_text(column, form)
    trimmed = pc.utf8_trim_whitespace(column)
    micros = np.zeros(len(column), np.int64)
    done = ~column.is_valid().to_numpy(zero_copy_only=False)
    missing = done.copy()
    for pattern in (_ZONED, _NAIVE):
        where = pc.fill_null(pc.match_substring_regex(trimmed, pattern), False)
        chosen = where.to_numpy(zero_copy_only=False)
        if not chosen.any():
            continue
        zoned = pattern is _ZONED
        try:
            moments = pc.cast(trimmed.filter(where), pa.timestamp("us", "UTC" if zoned else None))
        except pa.ArrowInvalid:
            continue  # one of them is no date at all: they are read one by one below
        values = pc.cast(moments, pa.int64())
        micros[chosen] = (values if zoned else _local(values, timezone)).to_numpy(zero_copy_only=False)
        done |= chosen
    bad = np.zeros(len(column), bool)
    for at in np.flatnonzero(~done):
        text = trimmed[int(at)].as_py()
        value = None if form == "iso" and text.isdigit() else _one(text, timezone)
        bad[at] = value is None
        micros[at] = 0 if value is None else value
    return pa.array(micros, mask=missing | bad), pa.array(bad)


def _one(text: str, timezone: str) -> int | None:
    try:
        parsed = dt.datetime.fromisoformat(re.sub(r" ?UTC$", "+00:00", text))
    except ValueError:
        if re.fullmatch(r"-?\d+\.\d+", text):
            return _by_size(float(text))
        return micros_of(text)
    if re.fullmatch(r"\d+", text):
        return micros_of(text)
    return _from_datetime(parsed, timezone)


def _numbers_in_text(column: pa.Array, form: str) -> tuple[pa.Array, pa.Array]:
    values, bad = _floats(column)
    micros, far = _numbers(values, form)
    return micros, pc.or_(bad, far)


def _formatted(column: pa.Array, form: str, timezone: str) -> tuple[pa.Array, pa.Array]:
    if "%f" in form or "%z" in form or "%p" in form:  # Arrow does not read these
        found = [_strptime(text, form, timezone) for text in column.to_pylist()]
        micros = pa.array(found, pa.int64())
    else:
        moments = pc.strptime(column, format=form, unit="us", error_is_null=True)
        micros = _local(pc.cast(moments, pa.int64()), timezone)
    return micros, pc.and_(column.is_valid(), micros.is_null())


def _strptime(text: str | None, form: str, timezone: str) -> int | None:
    if text is None:
        return None
    try:
        return _from_datetime(dt.datetime.strptime(text.strip(), form), timezone)
    except ValueError:
        return None
