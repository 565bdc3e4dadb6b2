"""Servers that may keep a part of a shop instead of its folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Servers:
    """Servers that keep a part of a shop instead of its folder; "" for none.

    Args:
        shop: By which name the shop is known there, one of its own in each server.
        journal: A PostgreSQL address, ``postgresql://...``: journal and decision log.
        live: A Redis or Valkey address, ``redis://...``: the live histories, a cache.
    """

    shop: str = "shop"
    journal: str = ""
    live: str = ""
