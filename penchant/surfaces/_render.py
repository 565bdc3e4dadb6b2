"""Answers as a person at a terminal reads them: tables where they help, names and values elsewhere."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penchant import engine as e
from penchant.core import ErasureReceipt, Estimate, Slate, iso

_EVIDENCE = 2  # events shown beside an interest
_WIDTH = 120  # columns where the output is no terminal
_HUE = "bold"


def render(response: Any) -> str:
    """Make the text for an answer; coloured when standard output is a terminal."""
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if terminal or "COLUMNS" in os.environ else _WIDTH
    if isinstance(response, e.Health):
        return _trimmed(e.render_health_text(response, min(width, _WIDTH), color=terminal))
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False
    )
    console.print(_shown(response))
    return _trimmed(buffer.getvalue())


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def _shown(response: Any) -> RenderableType:
    for kind, renderer in _RENDERERS.items():
        if isinstance(response, kind):
            return renderer(response)
    return _values(response)


def _lines(*parts: RenderableType | None) -> Group:
    return Group(*(part for part in parts if part is not None and part != ""))


def _table(*columns: str, right: Sequence[str] = (), intervals: Sequence[str] = ()) -> Table:
    """Numbers to the right are never broken; intervals are, between their parts, where the terminal is narrow."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style=_HUE, show_edge=False)
    for place, column in enumerate(columns):
        side: Literal["right", "left"] = "right" if column in right or column in intervals else "left"
        whole = column in right or column in _WHOLE or (place == 0 and bool(intervals))
        table.add_column(column, justify=side, overflow="fold", no_wrap=whole)
    return table


_WHOLE = ("model", "item")  # names that are not broken over lines


def _note(text: str | None) -> Text | None:
    return Text(f"note: {text}") if text else None


# -- one renderer for each answer that deserves it ------------------------------------------------------


def _slate(slate: Slate) -> RenderableType:
    head = f"for {slate.subject}   model {slate.model_id[:12]}   policy {slate.policy_id}"
    titled = any(item.title for item in slate.items)
    known = any(item.probability is not None for item in slate.items)
    names = (
        "rank",
        "item",
        *(("title",) if titled else ()),
        "score",
        *(("chance",) if known else ()),
        "odds",
        "why",
    )
    table = _table(*names, right=("rank", "score", "chance", "odds"))
    for rank, item in enumerate(slate.items, start=1):
        why = "; ".join(reason.text for reason in item.reasons) + (" (explored)" if item.explored else "")
        name = (item.title or "",) if titled else ()
        chance = ("" if item.probability is None else f"{item.probability:.2%}",) if known else ()
        table.add_row(str(rank), item.item_id, *name, f"{item.score:.4g}", *chance, f"{item.odds:.3g}", why)
    degraded = Text("degraded answer") if slate.degraded else None
    stages = None
    if slate.stages is not None:
        stages = _table("stage", "left", "what it did", "of the items shown", right=("left",))
        for stage in slate.stages:
            values = "  ".join(f"{item_id} {value:.3g}" for item_id, value in stage.values.items())
            stages.add_row(stage.name, f"{stage.left:,}", stage.says, values)
    items = table if slate.items else Text("no items")
    return _lines(head, degraded, _note(slate.note), items, stages, slate.recommendation_id)


def _batch(report: e.BatchReport) -> RenderableType:
    words = (
        f"{report.rows:,} rows for {report.users:,} people in {report.seconds:.1f} s, written to {report.out}"
    )
    unknown = f"{report.unknown_users:,} of them have no events yet" if report.unknown_users else None
    degraded = " (degraded)" if report.degraded else ""
    return _lines(words, unknown, f"model {report.model_id[:12]}{degraded}, policy {report.policy_id}")


def _recounted(report: e.RecountReport) -> RenderableType:
    return Text(
        f"counted {report.events:,} events in {report.seconds:.1f} s; "
        f"{report.kind} serves with them ({report.promoted[:12]})"
    )


def _ingested(report: e.IngestReport) -> RenderableType:
    numbers = ("rows", "accepted", "already", "refused")
    table = _table("file", "what", "dialect", *numbers, right=numbers)
    details: list[RenderableType] = []
    for file in report.files:
        counts = (file.rows, file.accepted, file.already_stored, file.refused)
        table.add_row(file.file, file.what, file.dialect, *(f"{count:,}" for count in counts))
        for refusal in file.refusals:
            examples = f": {'; '.join(refusal.examples[:3])}" if refusal.examples else ""
            details.append(Text(f"  {refusal.count:,} refused, {refusal.reason}{examples}"))
        if file.erased:
            details.append(Text(f"  {file.erased:,} of erased people, passed over"))
        details += [Text(f"  {note}") for note in file.notes]
        if file.quarantine:
            details.append(Text(f"  refused rows are in {file.quarantine}"))
    return _lines(table, *details)


def _leaderboard(report: e.LeaderboardReport) -> RenderableType:
    head = f"{report.protocol}\n{report.users:,} people, {report.items:,} items, seen items: {report.seen}"
    names = list(dict.fromkeys(name for row in report.rows for name in row.metrics))
    shown = [name for name in _HEADLINES if name in names] or names[:6]
    table = _table("model", *shown, "seconds", right=["seconds"], intervals=shown)
    for row in report.rows:
        cells = [str(row.metrics[name]) if name in row.metrics else "" for name in shown]
        table.add_row(row.model, *cells, f"{row.seconds:.1f}")
    notes = [Text(f"{row.model}: {row.note}") for row in report.rows if row.note]
    return _lines(
        head, table, *notes, _differences(report), *_baskets(report), Text(report.verdict, style=_HUE)
    )


def _baskets(report: e.LeaderboardReport) -> Iterator[RenderableType]:
    """The figures on next baskets, and what each model has over the frequency of the own history."""
    rows = [row for row in report.rows if row.baskets]
    if not rows or report.baskets is None:
        return
    yield Text(report.baskets)
    for title, part, wanted in (
        ("next basket", "baskets", _ON_BASKETS),
        ("against frequency", "baskets_difference", _ON_BASKETS[:3]),
    ):
        named = [(row.model, getattr(row, part)) for row in rows]
        known = {name for _, found in named for name in found}
        shown = [name for name in wanted if name in known]
        if not shown:
            continue
        table = _table(title, *shown, intervals=shown)
        for model, found in named:
            if found:
                signed = part == "baskets_difference"
                table.add_row(model, *(_short(found[name], signed=signed) for name in shown))
        yield table


_ON_BASKETS = ("recall@10", "NDCG@10", "new_recall@10", "repeat_recall@10")
_HEADLINES = ("HR@10", "NDCG@10", "MRR")
_PART = "NDCG@10"
_SIDE_BY_SIDE = 4  # parts that fit beside a name in 120 columns, with their intervals


def _measured(report: e.LeaderboardReport) -> RenderableType:
    """The leaderboard, and one measure in parts of the people: by what was asked for, and by length of the history."""
    rows = [row for row in report.rows if row.metrics]
    tables = [
        table
        for name in report.by
        for table in _parts(name, [(row.model, _of_group(row, f"{name}=")) for row in rows])
    ]
    return _lines(
        _leaderboard(report),
        *tables,
        *_parts("length", [(row.model, row.by_length) for row in rows]),
        *_parts("popularity", [(row.model, row.by_popularity) for row in rows], "recall@10"),
        *(_calibrated(row) for row in rows[:1]),
    )


def _calibrated(row: e.MetricRow) -> RenderableType | None:
    """Whether the probabilities of the best model come true."""
    found = row.calibration
    if found is None or not found.levels:
        return None
    table = _table(
        f"chances by {row.model}", "said", "came true", "times", intervals=("came true",), right=("times",)
    )
    for level in found.levels:
        came = level.came
        share = f"{came.value:.1%} [{came.low:.1%}, {came.high:.1%}]"
        table.add_row(f"about {level.about:.1%}", f"{level.said:.1%}", share, f"{level.count:,}")
    return _lines(table, f"expected calibration error of the likeliest item: {found.ece}")


def _of_group(row: e.MetricRow, start: str) -> dict[str, dict[str, Estimate]]:
    return {name.removeprefix(start): part for name, part in row.by_group.items() if name.startswith(start)}


def _parts(
    title: str, rows: list[tuple[str, dict[str, dict[str, Estimate]]]], measure: str = _PART
) -> Iterator[RenderableType]:
    """One measure of each model in each part of the people (how many those are): a few parts side by side."""
    labels = list(dict.fromkeys(label for _, parts in rows for label in parts))
    for start in range(0, len(labels), _SIDE_BY_SIDE):
        shown = labels[start : start + _SIDE_BY_SIDE]
        known = [next(parts[label][measure] for _, parts in rows if label in parts) for label in shown]
        heads = [f"{label} ({found.n:,})" for label, found in zip(shown, known, strict=True)]
        table = _table(f"{measure} by {title}", *heads, intervals=heads)
        for model, parts in rows:
            table.add_row(
                model, *(_short(parts[label][measure]) if label in parts else "" for label in shown)
            )
        yield table


def _short(found: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _differences(report: e.LeaderboardReport) -> RenderableType | None:
    rows = [row for row in report.rows if row.difference]
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row.difference))
    shown = [name for name in _HEADLINES if name in names] or names[:4]
    table = _table("against transitions", *shown, intervals=shown)
    for row in rows:
        cells = (row.difference.get(name) for name in shown)
        table.add_row(row.model, *("" if cell is None else cell.signed for cell in cells))
    return table


def _trained(report: e.TrainReport) -> RenderableType:
    tags = None
    if report.tags is not None:
        found = report.tags
        table = _table("interest tags", "model", "base rate", right=("model", "base rate"))
        for name, estimate in found.metrics.items():
            table.add_row(name, str(estimate), str(found.base_rate.get(name, "")))
        half = found.base_rate_from_half
        rest = ", ".join(f"{name} {half[name]}" for name in ("accuracy", "F1 micro") if name in half)
        rest = f"the base rate, when it says only what is likelier than not: {rest}" if rest else ""
        classes = f"{len(found.classes):,} {'class' if len(found.classes) == 1 else 'classes'}"
        head = f"tags from {found.labels}: {classes}, {found.users:,} people"
        tags = _lines(head, table, rest) if found.note is None else Text(found.note)
    refused = report.gate is not None and report.gate.refused
    serves = "the model that served before goes on serving" if refused else "nothing was promoted"
    if report.promoted is not None:
        serves = f"{report.promoted_kind} serves now ({report.promoted[:12]})"
    return _lines(
        _leaderboard(report.leaderboard) if report.leaderboard is not None else None,
        tags,
        *map(Text, report.notes),
        report.gate.says if report.gate is not None else None,
        f"{serves}; {report.seconds:.0f} s in all",
    )


def _tuned(report: e.TuneReport) -> RenderableType:
    halves = ("validation", "held_out")
    table = _table(
        report.measure, "people who chose", "people who had no say", intervals=("people who chose",)
    )
    for name, row in (("as it stands", report.present), ("best", report.best)):
        table.add_row(name, *(str(row[half]) for half in halves))
    if report.difference:
        table.add_row("difference", *(report.difference[half].signed for half in halves))
    trials = _table("trial", "", report.measure, "epochs", "seconds", "settings", right=("trial", "epochs"))
    for trial in report.trials:
        value = "" if trial.validation is None else f"{trial.validation:.4f}"
        said = "as it stands: " if trial.present else ""
        said += ", ".join(f"{name} {_plain(setting)}" for name, setting in trial.settings.items())
        seconds = f"{trial.seconds:.0f}"
        trials.add_row(str(trial.number), trial.state, value, str(trial.epochs), seconds, said)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in report.importance.items())
    where = "written to shop.toml:" if report.applied else "for shop.toml (--apply writes it):"
    return _lines(
        report.protocol,
        trials,
        table,
        f"what mattered: {shares}" if shares else None,
        Text(report.verdict, style=_HUE),
        f"{where}\n{report.toml}" if report.settings else None,
        f"{report.seconds:.0f} s in all",
    )


def _sizes(report: e.SizesReport) -> RenderableType:
    numbers = ("width", "blocks", "heads", "feed-forward", "memory", "batch", "rate", "horizon")
    sets = _table("size", *numbers, right=numbers)
    figures = ("parameters", "weights", "gradients", "AdamW", "averages", "activations", "in all")
    work = ("MFLOP/target", "TFLOP/epoch")
    costs = _table("size", *figures, *work, right=(*figures, *work))
    for row in report.rows:
        dial = (row.width, row.depth, row.heads, row.feedforward, row.length, row.batch)
        sets.add_row(row.size, *(f"{n:,}" for n in dial), f"{row.learning_rate:g}", f"{row.horizon:.0e}")
        memory = (row.weights_mb, row.gradients_mb, row.optimiser_mb, row.averages_mb, row.activations_mb)
        amounts = (f"{mb:,.0f}" for mb in (*memory, row.training_mb))
        operations = (f"{row.mflop_per_target:,.2f}", f"{row.tflop_per_epoch:,.2f}")
        costs.add_row(row.size, f"{row.parameters:,}", *amounts, *operations)
    head = f"for {report.items:,} items and {report.targets:,} targets an epoch; memory in MB, float32, one process"
    return _lines(head, "", sets, "", costs)


def _profile(profile: e.Profile) -> RenderableType:
    parts: list[RenderableType] = []
    span = ""
    if profile.first_ts is not None and profile.last_ts is not None:
        span = f", {iso(profile.first_ts)[:10]} to {iso(profile.last_ts)[:10]}"
    for name in ("now", "month", "lifetime"):
        interests: list[e.Interest] = getattr(profile, name)
        if not interests:
            continue
        table = _table(name, "share", "lift", "events", "evidence", right=("share", "lift", "events"))
        for interest in interests:
            table.add_row(
                interest.tag,
                f"{interest.weight:.0%}",
                f"{interest.lift:.1f}x",
                f"{interest.events:,}",
                "; ".join(f"{w.kind} {w.title or w.item_id}" for w in interest.evidence[:_EVIDENCE]),
            )
        parts.append(table)
    if profile.predicted:
        table = _table("predicted", "chance", "usual", "because", right=("chance", "usual"))
        for tag in profile.predicted:
            usual = "" if tag.base_rate is None else f"{tag.base_rate:.0%}"
            table.add_row(tag.tag, f"{tag.probability:.0%}", usual, "; ".join(tag.because))
        parts.append(table)
    if profile.interests is not None:
        parts.append(_own_interests(profile.interests))
    return _lines(f"{profile.subject}: {profile.events:,} events{span}", _note(profile.note), *parts)


def _own_interests(own: e.OwnInterests) -> RenderableType:
    planned = [p.name + (f" (after {p.because})" if p.because else "") for p in own.planned]
    plan = own.suggested
    rows = {
        "held": own.held,
        "explored": [f"{o.name} ({o.rewards} of {o.outcomes})" for o in own.explored],
        "rejected": [*own.rejected, *own.rejected_items],
        "planned": planned,
        f"suggested by {plan.model}, counting {plan.weight:g}" if plan else "": plan.interests
        if plan
        else [],
    }
    table = _table("on the map", "interests")
    for name, names in rows.items():
        if names:
            table.add_row(name, "; ".join(names))
    table.add_row("exploring", own.explore)
    return table


def _map(report: e.InterestsReport) -> RenderableType:
    table = _table("interest", "items", "usual", "such as", "then", right=("items", "usual"))
    for row in report.interests:
        then = "; ".join(f"{after.name} {after.chance:.0%} ({after.lift:.1f}x)" for after in row.next)
        table.add_row(row.name, f"{row.items:,}", f"{row.usual:.1%}", "; ".join(row.examples), then)
    told = [f"{name} {value}" for name, value in report.metrics.items()]
    return _lines(
        f"{len(report.interests)} interests by {report.by}, as of {iso(report.as_of)[:10]}", table, *told
    )


def _plans(report: e.PlanReport) -> RenderableType:
    held = f"{report.sets:,} sets of interests, which {report.people:,} people hold or held"
    sets = f"{held}: {report.planned:,} have a plan"
    cost = f", cost {report.cost:.4g}" if report.cost else ""
    took = f"{report.input_tokens:,} tokens of questions, {report.output_tokens:,} of answers{cost}"
    if report.example is not None:
        asked = f"{report.model} would be asked {report.waiting:,} questions"
        return _lines(sets, asked, took, _note(report.note), "the first, word by word:", Text(report.example))
    refused = ", ".join(f"{why} {count:,}" for why, count in report.refused.items())
    counting = f"1 + {report.weight:g} / place" if report.weight else "nothing"
    return _lines(
        sets,
        f"{report.model} was asked {report.asked:,} questions in {report.seconds:.1f} s",
        took,
        f"answers of no use: {refused}" if refused else None,
        f"names of no use: {report.dropped:,}" if report.dropped else None,
        *(f"{name} {value}" for name, value in report.metrics.items()),
        f"plans count {counting}",
        _note(report.note),
    )


def _similar(report: e.SimilarReport) -> RenderableType:
    table = _table("rank", "item", "score", "title", right=("rank", "score"))
    for rank, item in enumerate(report.items, start=1):
        table.add_row(str(rank), item.item_id, f"{item.score:.4g}", item.title or "")
    head = f"goes with {report.item_id}   model {report.model_id[:12]}"
    return _lines(head, _note(report.note), table if report.items else Text("no items"))


def _searched(report: e.SearchReport) -> RenderableType:
    table = _table(
        "rank", "item", "score", "text", "interest", "title", right=("rank", "score", "text", "interest")
    )
    for rank, item in enumerate(report.items, start=1):
        numbers = (f"{n:.3f}" for n in (item.score, item.text, item.interest))
        table.add_row(str(rank), item.item_id, *numbers, item.title or "")
    head = f"{report.found:,} found   model {report.model_id[:12]}"
    if report.corrected is not None:
        head = f"searched for: {report.corrected}   {head}"
    return _lines(head, _note(report.note), table if report.items else Text("no items"))


def _status(status: e.Status) -> RenderableType:
    simple = {
        name: value
        for name, value in _pairs(status)
        if name not in {"models", "bytes", "first_ts", "last_ts"}
    }
    for name in ("first_ts", "last_ts"):
        moment = getattr(status, name)
        simple[name.removesuffix("_ts") + " event"] = None if moment is None else iso(moment)
    simple["size"] = f"{status.bytes / 1e6:,.1f} MB"
    table = _table("model", "artifact", "learned until", "", right=())
    for model in status.models:
        table.add_row(model.kind, model.id[:12], iso(model.as_of), "serves" if model.promoted else "")
    return _lines(_grid(simple), table if status.models else None)


def _init(report: e.InitReport) -> RenderableType:
    return _lines(
        f"{report.name} is a shop now, in {report.path}; its money is {report.currency}",
        "next:",
        *(f"  {line}" for line in report.next),
    )


def _observed(report: e.ObserveReport) -> RenderableType:
    bad = [
        Text(f"event {place}: {result.status}{f', {result.error}' if result.error else ''}")
        for place, result in enumerate(report.results, start=1)
        if result.status != "stored"
    ]
    return _lines(f"{report.stored:,} of {len(report.results):,} events stored", *bad)


def _erased(receipt: ErasureReceipt) -> RenderableType:
    proof = f"{receipt.bytes_searched:,} bytes searched: nothing of this person is left"
    known = any(count for part, count in receipt.removed.items() if part in _OF_ONE_PERSON)
    unknown = None if known else Text("nothing was known of this person; what comes from now on is refused")
    return _lines(
        f"erased {receipt.subject} at {iso(receipt.ts)}", unknown, _grid(dict(receipt.removed)), proof
    )


_OF_ONE_PERSON = ("journal", "decisions", "events", "users", "batch_answers", "quarantine")


def _exported(report: e.ExportReport) -> RenderableType:
    erased = Text("this person was erased") if report.erased else None
    kept = {"events": report.events, "refused rows": report.refused, "decisions": report.decisions}
    counts = {**{name: len(rows) for name, rows in kept.items()}, **report.attributes}
    return _lines(
        _profile(report.profile), erased, _grid(counts), "use --json or --out FILE to see all of it"
    )


# -- everything else: names and values ------------------------------------------------------------------


def _values(value: Any) -> RenderableType:
    if isinstance(value, msgspec.Struct):
        return _grid(dict(_pairs(value)))
    return _grid(value) if isinstance(value, dict) else Text(_plain(value))


def _pairs(struct: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(struct, name)) for name in struct.__struct_fields__)


def _grid(values: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    below: list[RenderableType] = []
    for name, value in values.items():
        if value is None or value in ([], {}, ""):
            continue
        label = name.replace("_", " ")
        if _is_rows(value):
            below += [Text(label, style=_HUE), Padding(_rows(list(value)), (0, 0, 0, 2))]
        elif isinstance(value, msgspec.Struct | dict) and not isinstance(value, Estimate):
            below += [Text(label, style=_HUE), Padding(_values(value), (0, 0, 0, 2))]
        else:
            table.add_row(label, _moment(name, value))
    return _lines(table, *below)


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(v, msgspec.Struct) for v in value)
    )


def _rows(structs: list[Any]) -> RenderableType:
    names = [
        name
        for name in structs[0].__struct_fields__
        if any(getattr(struct, name, None) not in (None, [], {}, "") for struct in structs)
    ]
    table = _table(*(name.replace("_", " ") for name in names))
    for struct in structs:
        table.add_row(*(_moment(name, getattr(struct, name, None)) for name in names))
    return table


def _moment(name: str, value: Any) -> str:
    return iso(value) if (name == "ts" or name.endswith("_ts")) and isinstance(value, int) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return "" if value is None else str(value)


def _replayed(report: e.ReplayReport) -> RenderableType:
    """The verdict first, then what it rests on."""
    people = "" if report.people is None else f" to {report.people:,} people"
    head = f"{report.answers:,} answers{people} in {report.log}; {report.estimator} per answer"
    values = _table("", "value and interval")
    for name, estimate in (("new policy", report.value), ("logged", report.logged)):
        values.add_row(name, str(estimate))
    values.add_row("difference", report.difference.signed)
    others = _table("estimator", "value and interval", "interval by")
    for name, estimate in report.estimates.items():
        others.add_row(name, str(estimate), estimate.method)
    gates = _table("check", "", "seen")
    for gate in report.gates:
        gates.add_row(gate.name, "met" if gate.passed else "NOT met", gate.says)
    parts = _table("part", "answers", "new", "logged", "difference", "verdict", right=("answers",))
    for part in report.parts:
        row = (str(part.value), str(part.logged), part.difference.signed, part.verdict)
        parts.add_row(part.name, f"{part.answers:,}", *row)
    return _lines(
        Text(f"{report.policy}: {report.verdict}", style=_HUE),
        Text(report.reason),
        head,
        *(values, others, gates),
        parts if report.parts else None,
        *(_note(note) for note in report.notes),
    )


def _experiment(report: e.ExperimentReport) -> RenderableType:
    """What to do first, then arms and guardrails."""
    arms = _table("arm", "entered", "count", "per person", "change", right=("entered", "count"))
    change = {d.arm: "" if d.relative is None else d.relative.signed for d in report.differences}
    for arm in report.arms:
        mean = "" if arm.mean is None else str(arm.mean)
        arms.add_row(arm.arm, f"{arm.entered:,}", f"{arm.people:,}", mean, change.get(arm.arm, ""))
    guardrails = _table("guardrail", "arm", "change", "")
    for rail in report.guardrails:
        moved = "" if rail.relative is None else rail.relative.signed
        guardrails.add_row(rail.guardrail, rail.arm, moved, "BROKEN" if rail.broken else "held")
    plan = f"{report.metric}; {report.fraction:.0%} of {report.planned:,} planned people; monitored: {report.monitor}"
    return _lines(
        Text(f"{report.name} ({report.status}): {report.verdict}", style=_HUE),
        Text(report.says),
        plan,
        arms,
        guardrails if report.guardrails else None,
        Text(f"arms as dealt: p = {report.sample_ratio:.3g}"),
        *(_note(note) for note in report.notes),
    )


_RENDERERS: dict[type, Callable[[Any], RenderableType]] = {
    Slate: _slate,
    ErasureReceipt: _erased,
    e.BatchReport: _batch,
    e.IngestReport: _ingested,
    e.LeaderboardReport: _measured,
    e.RecountReport: _recounted,
    e.TrainReport: _trained,
    e.TuneReport: _tuned,
    e.SizesReport: _sizes,
    e.Profile: _profile,
    e.OwnInterests: _own_interests,
    e.InterestsReport: _map,
    e.PlanReport: _plans,
    e.SimilarReport: _similar,
    e.SearchReport: _searched,
    e.Status: _status,
    e.ReplayReport: _replayed,
    e.ExperimentReport: _experiment,
    e.InitReport: _init,
    e.ObserveReport: _observed,
    e.ExportReport: _exported,
}
