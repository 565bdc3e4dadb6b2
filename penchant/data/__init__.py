"""Rows to arrays: what a shop sends becomes clean events, and clean events become snapshots and batches.

Names load on first use: the serving process takes ``sequence_batch`` from here and must not load Ibis,
DuckDB or pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penchant.core import load_on_use
from penchant.data._batch import (
    LiveSequences,
    Sequences,
    Windows,
    is_target,
    live_sequences,
    model_value,
    sequence_batch,
    sequence_length,
    target_kinds,
    training_windows,
    window_batch,
)

if TYPE_CHECKING:
    from penchant.data._baskets import VISIT, basket_size, next_baskets
    from penchant.data._bots import bot_subjects
    from penchant.data._catalog import read_catalog
    from penchant.data._clean import EventStream, clean_events
    from penchant.data._columns import clean_id, parse_money
    from penchant.data._content import (
        ContentStore,
        Encoded,
        is_english,
        item_content,
        item_images,
        item_texts,
        joined_content,
    )
    from penchant.data._doctor import diagnose
    from penchant.data._doctor_findings import Finding, Health
    from penchant.data._draft import DRAFT_SCHEMA
    from penchant.data._expressions import clean_expression
    from penchant.data._features import (
        FeatureOptions,
        FeatureRecipe,
        add_features,
        behaviour,
        feature_recipe,
        item_categories,
        raw_features,
        with_features,
    )
    from penchant.data._health_view import render_health_html, render_health_text
    from penchant.data._ids import content_id
    from penchant.data._labels import item_labels, numbered_labels
    from penchant.data._live import check_event
    from penchant.data._mapping import Mapping, mappings_from
    from penchant.data._messages import MESSAGE_FORMS, Message, read_message
    from penchant.data._quarantine import Quarantine
    from penchant.data._recognise import Recognised, recognise
    from penchant.data._report import CleaningReport
    from penchant.data._rules import RULE, RULES, Rule, limits_of
    from penchant.data._settings import Settings, minor_units, settings_from
    from penchant.data._snapshot import SnapshotOptions, drop_snapshots, make_snapshot, open_snapshot
    from penchant.data._source import Source, open_source
    from penchant.data._splits import (
        Cases,
        before,
        later_cases,
        leave_one_out,
        repeat_share,
        split_time,
        time_split,
    )
    from penchant.data._transform import ColumnRule, FeatureTransform
    from penchant.data._users import read_users
    from penchant.data._values import item_values

# public name -> private module, loaded on first use
_LAZY = {
    "Cases": "_splits",
    "CleaningReport": "_report",
    "ColumnRule": "_transform",
    "ContentStore": "_content",
    "DRAFT_SCHEMA": "_draft",
    "Encoded": "_content",
    "EventStream": "_clean",
    "FeatureOptions": "_features",
    "FeatureRecipe": "_features",
    "FeatureTransform": "_transform",
    "Finding": "_doctor_findings",
    "Health": "_doctor_findings",
    "MESSAGE_FORMS": "_messages",
    "Mapping": "_mapping",
    "Message": "_messages",
    "Quarantine": "_quarantine",
    "RULE": "_rules",
    "RULES": "_rules",
    "Recognised": "_recognise",
    "Rule": "_rules",
    "Settings": "_settings",
    "SnapshotOptions": "_snapshot",
    "Source": "_source",
    "add_features": "_features",
    "VISIT": "_baskets",
    "basket_size": "_baskets",
    "before": "_splits",
    "next_baskets": "_baskets",
    "split_time": "_splits",
    "behaviour": "_features",
    "bot_subjects": "_bots",
    "check_event": "_live",
    "clean_events": "_clean",
    "clean_expression": "_expressions",
    "clean_id": "_columns",
    "content_id": "_ids",
    "diagnose": "_doctor",
    "drop_snapshots": "_snapshot",
    "feature_recipe": "_features",
    "is_english": "_content",
    "item_categories": "_features",
    "item_content": "_content",
    "item_images": "_content",
    "item_labels": "_labels",
    "item_texts": "_content",
    "joined_content": "_content",
    "item_values": "_values",
    "later_cases": "_splits",
    "leave_one_out": "_splits",
    "limits_of": "_rules",
    "make_snapshot": "_snapshot",
    "mappings_from": "_mapping",
    "minor_units": "_settings",
    "numbered_labels": "_labels",
    "open_snapshot": "_snapshot",
    "open_source": "_source",
    "parse_money": "_columns",
    "raw_features": "_features",
    "read_catalog": "_catalog",
    "read_message": "_messages",
    "read_users": "_users",
    "recognise": "_recognise",
    "render_health_html": "_health_view",
    "render_health_text": "_health_view",
    "repeat_share": "_splits",
    "settings_from": "_settings",
    "time_split": "_splits",
    "with_features": "_features",
}

__all__ = [
    "DRAFT_SCHEMA",
    "MESSAGE_FORMS",
    "RULE",
    "RULES",
    "VISIT",
    "Cases",
    "CleaningReport",
    "ColumnRule",
    "ContentStore",
    "Encoded",
    "EventStream",
    "FeatureOptions",
    "FeatureRecipe",
    "FeatureTransform",
    "Finding",
    "Health",
    "LiveSequences",
    "Mapping",
    "Message",
    "Quarantine",
    "Recognised",
    "Rule",
    "Sequences",
    "Settings",
    "SnapshotOptions",
    "Source",
    "Windows",
    "add_features",
    "basket_size",
    "before",
    "behaviour",
    "bot_subjects",
    "check_event",
    "clean_events",
    "clean_expression",
    "clean_id",
    "content_id",
    "diagnose",
    "drop_snapshots",
    "feature_recipe",
    "is_english",
    "is_target",
    "item_categories",
    "item_content",
    "item_images",
    "item_labels",
    "item_texts",
    "item_values",
    "joined_content",
    "later_cases",
    "leave_one_out",
    "limits_of",
    "live_sequences",
    "make_snapshot",
    "mappings_from",
    "minor_units",
    "model_value",
    "next_baskets",
    "numbered_labels",
    "open_snapshot",
    "open_source",
    "parse_money",
    "raw_features",
    "read_catalog",
    "read_message",
    "read_users",
    "recognise",
    "render_health_html",
    "render_health_text",
    "repeat_share",
    "sequence_batch",
    "sequence_length",
    "settings_from",
    "split_time",
    "target_kinds",
    "time_split",
    "training_windows",
    "window_batch",
    "with_features",
]


__getattr__ = load_on_use(__name__, _LAZY)
