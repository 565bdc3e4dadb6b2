"""The words of a catalogue, found again in spite of typing errors.

Words are weighed by BM25 (Robertson and Zaragoza 2009) over title, brand, category, labels and description. A word
that the catalogue does not have stands for those that are near it by optimal string alignment distance (RapidFuzz,
MIT licence): one error from four letters on, two from eight. The last word may be unfinished. No regular expression of
the query is ever run: what a query costs grows with its length, which is bounded.

Letters: N + 1 item numbers, W words of the catalogue.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from rapidfuzz import process
from rapidfuzz.distance import OSA
from scipy import sparse

from penchant.core import Floats
from penchant.core.errors import InputError

MAX_QUERY = 200  # characters
MAX_WORDS = 20
_WORD = re.compile(r"\w+")
_FIELDS = {"title": 4, "brand": 2, "category": 2, "color": 1, "size": 1}  # how often each word counts
_READ = 1000  # characters of a description
_LONGEST = 32  # letters of a word
_K1, _B = 1.2, 0.5
_ERROR = 0.5  # weight of a word for each error it is away
_BEGUN = 0.7  # weight of a word that the last one of the query begins
_SIMILAR = 20  # words that a wrong one may stand for


def words_of(text: str) -> list[str]:
    """The words of a text: small letters without accents; Chinese, Japanese and Thai in pairs of signs.

    Example:
        >>> words_of("Crème brûlée, 2x"), words_of("绿茶叶")
        (['creme', 'brulee', '2x'], ['绿茶', '茶叶'])
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = unicodedata.normalize("NFC", "".join(c for c in plain if not unicodedata.combining(c)))
    found: list[str] = []
    for word in _WORD.findall(plain):
        if any(_unspaced(c) for c in word) and len(word) > 2:
            found += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            found.append(word[:_LONGEST])
    return found


def _unspaced(sign: str) -> bool:
    return "\u0e00" <= sign <= "\u0e7f" or "\u3040" <= sign <= "\u30ff" or "\u3400" <= sign <= "\u9fff"


def check_query(query: str) -> list[str]:
    """The words of a query.

    Raises:
        InputError: It is empty, too long, or holds no word.
    """
    if len(query) > MAX_QUERY:
        raise InputError(
            "this query is too long", value=query, hint=f"use at most {MAX_QUERY} characters", path="$.query"
        )
    words = words_of(query)
    if not words:
        raise InputError("this query holds no word", value=query, hint="write some letters", path="$.query")
    if len(words) > MAX_WORDS:
        raise InputError(
            "this query has too many words", value=len(words), hint=f"use at most {MAX_WORDS}", path="$.query"
        )
    return words


@dataclass(frozen=True, eq=False)
class Found:
    """What a query found."""

    score_N: Floats  # 0 = not found, about 1 = all that was asked for
    corrected: str | None  # what was searched for instead, where the catalogue lacks a word


class SearchIndex:
    """The words of one version of a catalogue.

    Args:
        table: The catalogue in the order of a vocabulary; row 0 is no item.

    Example:
        >>> table = pa.table({"title": [None, "Green tea", "Black tea", "Teapot"]})
        >>> found = SearchIndex(table).find(["gren", "tea"])
        >>> int(found.score_N.argmax()), found.corrected
        (1, 'green tea')
    """

    def __init__(self, table: pa.Table) -> None:
        counts = [Counter[str]() for _ in range(table.num_rows)]
        for name, weight in _FIELDS.items():
            for row, text in enumerate(_texts(table, name)):
                for word in words_of(text) if text else ():
                    counts[row][word] += weight
        for row, text in enumerate(_texts(table, "description")):
            for word in set(words_of(text[:_READ])) if text else ():
                counts[row][word] += 1
        if "labels" in table.column_names:
            for row, labels in enumerate(table["labels"].to_pylist()):
                for word in words_of(" ".join(labels)) if labels else ():
                    counts[row][word] += 1
        self.words = sorted({word for one in counts for word in one})
        self._number = {word: number for number, word in enumerate(self.words)}
        self.rows = table.num_rows
        lengths = np.array([sum(one.values()) for one in counts], np.float64)
        row_M = np.repeat(np.arange(self.rows), [len(one) for one in counts])
        word_M = np.array([self._number[word] for one in counts for word in one], np.int64)
        count_M = np.array([n for one in counts for n in one.values()], np.float64)
        usual = lengths[lengths > 0].mean() if (lengths > 0).any() else 1.0
        saturated_M = count_M * (_K1 + 1) / (count_M + _K1 * (1 - _B + _B * lengths[row_M] / usual))
        in_W = np.bincount(word_M, minlength=len(self.words)) if len(word_M) else np.zeros(len(self.words))
        rare_W = np.log1p((self.rows - in_W + 0.5) / (in_W + 0.5))
        shape = (len(self.words), self.rows)
        self._weight_WN = sparse.csr_matrix((saturated_M * rare_W[word_M], (word_M, row_M)), shape=shape)
        self._unknown = float(np.log1p(2 * self.rows + 1))  # weight of a word that no text has, met once

    def find(self, words: list[str]) -> Found:
        """Score all items; one that has all the words of the query comes before one that has some.

        Scores are shares of what the query asks for: words that the catalogue lacks count among it, so that an item
        which has only the little words of a question does not pass for an answer.
        """
        score_N, met_N, asked = np.zeros(self.rows), np.zeros(self.rows), 0.0
        corrected = list(words)
        for at, word in enumerate(words):
            near = self._near(word, last=at == len(words) - 1)
            if not near:
                asked += self._unknown
                continue
            if word not in near and all(not other.startswith(word) for other in near):
                corrected[at] = max(near, key=lambda other: (near[other], self._common(other)))
            best_N = np.zeros(self.rows)
            for other, weight in near.items():
                row = self._weight_WN[self._number[other]]
                best_N[row.indices] = np.maximum(best_N[row.indices], weight * row.data)
            score_N += best_N
            met_N += best_N > 0
            asked += float(best_N.max()) if word in self._number else self._unknown
        score_N *= (met_N / len(words)) ** 2 / asked
        return Found(score_N, " ".join(corrected) if corrected != words else None)

    def _common(self, word: str) -> int:
        return int(self._weight_WN[self._number[word]].nnz)

    def _near(self, word: str, *, last: bool) -> dict[str, float]:
        """Words that one of the query stands for, with their weights."""
        found: dict[str, float] = {}
        if last and len(word) >= 2:
            at = bisect_left(self.words, word)
            while at < len(self.words) and self.words[at].startswith(word) and len(found) < 200:
                # A word that stands in the catalogue is whole: those that it begins are rarely meant.
                found[self.words[at]] = _BEGUN if word not in self._number else _BEGUN / 3
                at += 1
        if word in self._number:
            found[word] = 1.0
        errors = 0 if len(word) < 4 else 1 if len(word) < 8 else 2
        if not found and errors:
            near = process.extract(
                word, self.words, scorer=OSA.distance, score_cutoff=errors, limit=_SIMILAR, processor=None
            )
            found = {other: _ERROR ** int(distance) for other, distance, _ in near}
        return found


def _texts(table: pa.Table, name: str) -> list[str | None]:
    return table[name].to_pylist() if name in table.column_names else []
