"""The one declared place where features are normalised and missing values are handled.

The rules, decided column by column on training data alone and then only applied:

- **Numbers and booleans.** Where every known value is at least 0 and the skewness is above 1, the logarithm
  of 1 + x is taken. Then the mean is subtracted and the result divided by the standard deviation (population,
  known values only; a constant column becomes 0) and cut off at +-10. A missing value (null, NaN or infinite)
  becomes 0, the mean; where training data had missing values, a column ``<name> missing`` says so with 1.
- **Text.** One column for each of the 20 commonest values (``<name> = <value>``), and ``<name> = other`` for
  all the rest. Missing: 0 in all of them. A column of which most values are unique is an id and is left out.
- **Lists of text.** The same, with a 1 for each value in the list.
- Dates and times count as days since 1970; columns of any other type are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Noun
from penchant.core.errors import InputError

MAX_VALUES = 20  # values of a text column that get their own column
LIMIT = 10.0  # standard deviations beyond which a number is cut off
SKEWED = 1.0  # skewness above which the logarithm is taken
_BLOCK = 4096  # rows worked on at once
_ARRAY = "feature_transform"  # name of the array that holds the whole transform as JSON

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class ColumnRule(Noun, frozen=True):
    """How one raw column becomes feature columns."""

    name: str
    form: Literal["number", "text", "list"]
    log: bool = False
    mean: float = 0.0
    std: float = 1.0  # 0 = constant in training
    missing: bool = False  # training data had missing values: a column tells
    values: tuple[str, ...] = ()  # text and list: the commonest, in order of name

    @property
    def width(self) -> int:
        """How many feature columns this column makes."""
        return 1 + self.missing if self.form == "number" else len(self.values) + 1

    @property
    def names(self) -> list[str]:
        """Names of the feature columns this column makes."""
        if self.form == "number":
            return [self.name, f"{self.name} missing"] if self.missing else [self.name]
        return [f"{self.name} = {value}" for value in [*self.values, "other"]]


class FeatureTransform(Noun, frozen=True):
    """Raw columns to normalised features; fitted once, on training time only, and applied everywhere.

    Example:
        >>> raw = pa.table({"views": [0, 2, 4], "city": ["Rome", None, "Rome"]})
        >>> transform = FeatureTransform.fit(raw)
        >>> transform.names
        ('views', 'city = Rome', 'city = other')
        >>> transform.apply(raw).round(3).tolist()
        [[-1.225000023841858, 1.0, 0.0], [0.0, 0.0, 0.0], [1.225000023841858, 1.0, 0.0]]
    """

    rules: list[ColumnRule]

    @classmethod
    def fit(cls, raw: pa.Table, *, leave_out: frozenset[str] = frozenset()) -> Self:
        """Choose the rule of each column, except ``leave_out``, from the rows of training time."""
        rules = [_rule(name, raw.column(name)) for name in raw.column_names if name not in leave_out]
        return cls(rules=[rule for rule in rules if rule is not None])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the feature columns (F,)."""
        return tuple(name for rule in self.rules for name in rule.names)

    def apply(self, raw: pa.Table, out: Float32s | None = None) -> Float32s:
        """Make the features of some rows: (len(raw), F) float32, written into ``out`` if given.

        Raises:
            InputError: A column that was there in training is absent.
        """
        if out is None:
            out = np.zeros((raw.num_rows, sum(rule.width for rule in self.rules)), np.float32)
        there = set(raw.column_names)
        for rule in self.rules:
            if rule.name not in there:
                raise InputError("a column that the features were fitted on is absent", value=rule.name)
        for start in range(0, max(raw.num_rows, 1), _BLOCK):
            self._apply(raw.slice(start, _BLOCK), out[start : start + _BLOCK])
        return out

    def _apply(self, raw: pa.Table, out: Float32s) -> None:
        """Fill the features of a block of rows: all numbers at once, for there may be hundreds of columns."""
        columns = dict(zip(raw.column_names, raw.columns, strict=True))
        end = np.cumsum([rule.width for rule in self.rules], dtype=np.int64).tolist()
        numeric, numbers = [], []
        for place, rule in enumerate(self.rules):
            if rule.form == "number":
                numeric.append(place)
                numbers.append(_numbers_of(rule, columns[rule.name]))
            else:
                make = _apply_text if rule.form == "text" else _apply_list
                out[:, end[place] - rule.width : end[place]] = make(rule, columns[rule.name])
        if not numeric:
            return
        rules = [self.rules[place] for place in numeric]
        scaled_RB, known_RB = _scale(rules, np.stack(numbers))
        first = np.array([end[place] - self.rules[place].width for place in numeric])
        tell = np.array([rule.missing for rule in rules])
        out[:, first] = scaled_RB.T
        out[:, first[tell] + 1] = ~known_RB[tell].T

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The transform as one named array of JSON bytes, for an artifact."""
        return {_ARRAY: np.frombuffer(msgspec.json.encode(self), np.uint8)}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``; other arrays are not looked at."""
        return msgspec.json.decode(np.asarray(arrays[_ARRAY], np.uint8).tobytes(), type=cls)


def _rule(name: str, column: pa.ChunkedArray) -> ColumnRule | None:
    kind = column.type
    if _is_text(kind):
        return _text_rule(name, column, "text")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _text_rule(name, column, "list") if _is_text(kind.value_type) else None
    if _is_number(kind):
        return _number_rule(name, _as_numbers(column))
    return None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(number or types.is_boolean(kind) or types.is_date(kind) or types.is_timestamp(kind))


def _as_numbers(column: pa.ChunkedArray) -> Float64s:
    """Values as float64, NaN where missing."""
    kind = column.type
    days = 1.0
    if pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(kind):
        column, days = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()), 86400.0
    if not pa.types.is_float64(kind):
        column = column.cast(pa.float64())
    number = column.to_numpy() / days
    return np.where(np.isfinite(number), number, np.nan)


def _number_rule(name: str, number: Float64s) -> ColumnRule | None:
    known = number[~np.isnan(number)]
    if not len(known):
        return None
    log = bool(known.min() >= 0) and _skewness(known) > SKEWED
    scaled = np.log1p(known) if log else known
    mean, std = float(scaled.mean()), float(scaled.std())
    if std <= 1e-9 * max(1.0, abs(mean)):  # constant, but for rounding
        std = 0.0
    return ColumnRule(name=name, form="number", log=log, mean=mean, std=std, missing=len(known) < len(number))


def _skewness(known: Float64s) -> float:
    off = known - known.mean()
    spread = float(off.std())
    if spread <= 1e-9 * max(1.0, abs(float(known.mean()))):
        return 0.0
    return float(np.mean((off / spread) ** 3))


def _text_rule(name: str, column: pa.ChunkedArray, form: Literal["text", "list"]) -> ColumnRule | None:
    flat = _plain(column) if form == "text" else pc.list_flatten(column).cast(pa.string())
    counts = flat.drop_null().value_counts()
    if not len(counts):
        return None
    # An id tells people apart but does not say what they are alike in.
    if form == "text" and len(counts) > MAX_VALUES and len(counts) > 0.5 * len(flat.drop_null()):
        return None
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    common = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:MAX_VALUES]
    return ColumnRule(name=name, form=form, values=tuple(sorted(value for value, _ in common)))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _numbers_of(rule: ColumnRule, column: pa.ChunkedArray) -> Float64s:
    if pa.types.is_float32(column.type):  # most there are: without a cast in Arrow they cost a third
        return np.asarray(column.to_numpy(), np.float64)
    if not _is_number(column.type) and not pa.types.is_null(column.type):
        raise InputError("a column was numeric in training and is not now", value=rule.name)
    return _as_numbers(column)


def _scale(rules: Sequence[ColumnRule], number_RB: Float64s) -> tuple[Float64s, Bools]:
    """Normalised numbers, 0 where missing, and which were known: (R, B), a row a rule."""
    known_RB = np.isfinite(number_RB)
    number_RB = np.where(known_RB, number_RB, 0.0)
    log_R = np.array([rule.log for rule in rules])
    number_RB[log_R] = np.log1p(np.maximum(number_RB[log_R], 0.0))
    mean_R, std_R = (np.array([getattr(rule, name) for rule in rules])[:, None] for name in ("mean", "std"))
    scaled_RB = np.where(std_R > 0, (number_RB - mean_R) / np.where(std_R > 0, std_R, 1.0), 0.0)
    return np.where(known_RB, np.clip(scaled_RB, -LIMIT, LIMIT), 0.0), known_RB


def _places(rule: ColumnRule, text: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Column of each known value; unknown ones go to the last."""
    place = pc.index_in(text, value_set=pa.array(rule.values, pa.string()))
    return np.asarray(pc.fill_null(place, len(rule.values)).to_numpy(), np.int64)


def _apply_text(rule: ColumnRule, column: pa.ChunkedArray) -> Float64s:
    text = _plain(column)
    block = np.zeros((len(text), len(rule.values) + 1))
    row = np.flatnonzero(pc.is_valid(text).to_numpy())
    block[row, _places(rule, text)[row]] = 1.0
    return block


def _apply_list(rule: ColumnRule, column: pa.ChunkedArray) -> Float64s:
    block = np.zeros((len(column), len(rule.values) + 1))
    if pa.types.is_null(column.type):
        return block
    column = pa.chunked_array([column.combine_chunks()])
    row = pc.list_parent_indices(column).to_numpy()
    text = pc.list_flatten(column).cast(pa.string())
    known = pc.is_valid(text).to_numpy()
    block[row[known], _places(rule, text)[known]] = 1.0
    return block
