"""Log files of other systems: their columns, their policy, and the new policy's odds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Candidates, Floats, Ints, Policy, Query
from penchant.core.errors import InputError, NotFound, UnreadableFile
from penchant.engine._replay_requests import ReplayRequest
from penchant.engine._rules import filter_mask
from penchant.evaluation import Replay, balanced_odds, counted_rates, folds_by_person

if TYPE_CHECKING:
    from penchant.engine._replay import Cases

# Our name first, then what Open Bandit and others call the same.
NAMES = {
    "item_id": ("item_id", "action", "item"),
    "reward": ("reward", "click", "clicked", "visit", "conversion"),
    "odds": ("odds", "propensity_score", "pscore", "propensity", "action_prob"),
    "position": ("position", "slot"),
    "user_id": ("user_id", "user"),
    "logger": ("logger",),
}
_NEEDED = ("item_id", "reward", "odds")
LOGGER_ODDS = "odds:"  # odds:NAME is what logger NAME would have given the logged item


def read_table(path: str) -> pa.Table:
    """A CSV (plain or .gz) or Parquet file.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is neither.
    """
    import pyarrow.csv
    import pyarrow.parquet

    if not Path(path).is_file():
        raise NotFound("no such file", value=path, hint="give the path of a CSV or Parquet file")
    try:
        with Path(path).open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        return pyarrow.parquet.read_table(path) if parquet else pyarrow.csv.read_csv(path)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise UnreadableFile(
            f"this file cannot be read: {str(error).splitlines()[0]}",
            value=path,
            hint="give a CSV with a header, or a Parquet file",
        ) from None


def file_cases(request: ReplayRequest, policy_named: Callable[[str], Policy]) -> Cases:
    """A log file as cases: one row an item that was shown.

    Raises:
        InputError: Columns are missing or cannot be what they should be.
    """
    from penchant.engine._replay import Cases

    assert request.log is not None
    table = read_table(request.log)
    if request.where:
        table = table.filter(pa.array(filter_mask(table, request.where, "$.where")))
    if table.num_rows < 2:
        raise InputError("no rows are left to replay", value=request.where, hint="loosen --where")
    found = _recognised(table)
    items, item_C = _codes(found["item_id"])
    place_C = _codes(found["position"])[1] if "position" in found else np.zeros(len(item_C), np.int64)
    reward_C, logged_C = _numbers(found["reward"], "reward"), _numbers(found["odds"], "odds")
    logged_C, notes = _of_all_loggers(table, found, logged_C)
    if not ((logged_C > 0) & (logged_C <= 1)).all():
        raise InputError("odds lie above 0 and at most at 1", value=float(logged_C.min()), path="$.log")
    who_C = _codes(found["user_id"])[1] if "user_id" in found else None
    fold_C = folds_by_person(np.arange(len(item_C)) if who_C is None else who_C, seed=request.seed)
    rate_FPA = counted_rates(item_C, place_C, reward_C, fold_C, len(items), int(place_C.max()) + 1)
    predicted_C: Floats | None = rate_FPA[fold_C, place_C, item_C]
    expected_C: Floats | None
    lost = 0.0
    if request.odds is None and request.policy.startswith("column:"):
        target_C = _numbers(_column(table, request.policy.removeprefix("column:")), "the new policy's odds")
        predicted_C = expected_C = None
    else:
        if request.odds is not None:
            places = _values(found["position"]) if "position" in found else None
            odds_PA, lost = _odds_file(request.odds, items, places, rate_FPA.shape[1])
            odds_FPA = np.broadcast_to(odds_PA, rate_FPA.shape)
        else:
            odds_FPA = _odds_of(policy_named(request.policy), rate_FPA)
        target_C = odds_FPA[fold_C, place_C, item_C]
        expected_C = (odds_FPA * rate_FPA).sum(axis=2)[fold_C, place_C]
    _check_range(target_C)
    prepared = Replay(
        reward_C[:, None],
        logged_C[:, None],
        target_C[:, None],
        None if predicted_C is None else predicted_C[:, None],
        None if expected_C is None else expected_C[:, None],
        who_C,
        lost,
    )
    parts: dict[str, npt.NDArray[Any]] = {
        name: np.array([str(v) for v in _column(table, name).to_pylist()]) for name in request.by
    }
    return Cases(prepared, parts, Path(request.log).name, notes)


def _recognised(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    found = {
        ours: table[next(name for name in names if name in table.column_names)]
        for ours, names in NAMES.items()
        if any(name in table.column_names for name in names)
    }
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        also = "; ".join(f"{name} may be called {', '.join(NAMES[name][1:])}" for name in missing)
        raise InputError(
            f"the log lacks {', '.join(missing)}", value=table.column_names[:20], hint=also, path="$.log"
        )
    return found


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError("the log has no such column", value=name, hint=f"it has {table.column_names[:20]}")
    return table[name]


def _numbers(column: pa.ChunkedArray, name: str) -> Floats:
    try:
        numbers = np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        raise InputError(f"{name} must be numbers", value=str(column[0]), path="$.log") from None
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} is missing in some rows", hint="leave such rows out", path="$.log")
    return numbers


def _values(column: pa.ChunkedArray) -> list[str]:
    """Different values as texts, in their natural order."""
    return [str(value) for value in sorted(pc.unique(column.drop_null()).to_pylist())]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Values in order, and which one each row has."""
    if column.null_count:
        raise InputError("a key column has empty cells", hint="leave such rows out", path="$.log")
    values = sorted(pc.unique(column).to_pylist())
    code = pc.index_in(column, value_set=pa.array(values, column.type)).to_numpy()
    return [str(value) for value in values], np.asarray(code, np.int64)


def _of_all_loggers(
    table: pa.Table, found: dict[str, pa.ChunkedArray], logged_C: Floats
) -> tuple[Floats, list[str]]:
    """Balanced odds where several policies wrote the log and each one's odds are there."""
    if "logger" not in found:
        return logged_C, []
    names, logger_C = _codes(found["logger"])
    columns = [LOGGER_ODDS + name for name in names]
    if len(names) == 1 or not set(columns) <= set(table.column_names):
        note = "the odds of every logger are in the log" if len(names) == 1 else ""
        hint = f"with the columns {', '.join(columns)} the estimates would be narrower"
        return logged_C, [] if note else [f"{len(names)} policies wrote this log; {hint}"]
    odds_CL = np.stack([_numbers(table[name], name) for name in columns], axis=1)
    return balanced_odds(odds_CL, logger_C), [
        f"balanced weights over {len(names)} policies that wrote the log"
    ]


def _odds_of(policy: Policy, rate_FPA: Floats) -> Floats:
    """What a policy does that takes the counted rates of the other folds for its means."""
    out_FPA = np.zeros_like(rate_FPA)
    folds, places, size = rate_FPA.shape
    for fold in range(folds):
        for place in range(places):
            mean_N = rate_FPA[fold, place].astype(np.float32)
            candidates = Candidates(np.arange(1, size + 1), mean_N, np.zeros(size, np.float32), "log")
            choice = policy.choose(candidates, Query("log", 0, 1), np.random.default_rng(0))
            if choice.first_N is None:
                out_FPA[fold, place, choice.index_K] = 1.0
            else:
                out_FPA[fold, place] = choice.first_N
    return out_FPA


def _odds_file(path: str, items: list[str], places: list[str] | None, num: int) -> tuple[Floats, float]:
    """The new policy's odds by position and item: (P, A), and the share that falls on items the log lacks."""
    table = read_table(path)
    for name in ("item_id", "odds"):
        if name not in table.column_names:
            raise InputError(f"the odds lack {name}", value=table.column_names, path="$.odds")
    number = {item: n for n, item in enumerate(items)}
    rows = [number.get(str(value), -1) for value in table["item_id"].to_pylist()]
    item = np.array(rows, np.int64)
    odds = _numbers(table["odds"], "odds")
    place = np.zeros(len(item), np.int64)
    out_PA = np.zeros((num, len(items)))
    if "position" in table.column_names and places is not None:
        of = {value: n for n, value in enumerate(places)}
        place = np.array([of.get(str(value), -1) for value in table["position"].to_pylist()], np.int64)
        kept = (item >= 0) & (place >= 0)
        np.add.at(out_PA, (place[kept], item[kept]), odds[kept])
        total = float(odds[place >= 0].sum())
    else:
        kept = item >= 0
        out_PA += np.bincount(item[kept], odds[kept], minlength=len(items))
        total = float(odds.sum())
    if not np.isclose(
        total, num if "position" in table.column_names and places is not None else 1.0, atol=0.02
    ):
        raise InputError(
            "the new policy's odds must add up to 1 in each position", value=round(total, 4), path="$.odds"
        )
    return out_PA, 1 - float(out_PA.sum()) / num


def _check_range(target_C: Ints | Floats) -> None:
    if not ((target_C >= 0) & (target_C <= 1 + 1e-9)).all():
        raise InputError("the new policy's odds must lie between 0 and 1", value=float(target_C.max()))
