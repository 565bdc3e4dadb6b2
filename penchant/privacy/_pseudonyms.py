"""Pseudonyms: ids of persons replaced by what only the shop's key can make of them."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from penchant.privacy._secret import own_secret

_MADE = re.compile(r"~[0-9a-f]{32}")


class Pseudonyms:
    """HMAC-SHA256 of an id under a key of the shop, cut to 128 bits.

    A plain hash of an e-mail address is found by trying addresses; with a key it is not. Whoever has the key can
    still tell whether an id is that of a person: pseudonyms are personal data, and the key deserves its own place.

    Args:
        key: Path of the key's file; it is made at the first use.

    Example:
        >>> import tempfile
        >>> name = Pseudonyms(Path(tempfile.mkdtemp()) / "pseudonyms.key")
        >>> name("ann@example.com") == name("ann@example.com") != name("bob@example.com")
        True
        >>> name(name("ann@example.com")) == name("ann@example.com")
        True
    """

    def __init__(self, key: Path) -> None:
        self._base = hmac.new(own_secret(key), digestmod=hashlib.sha256)

    def __call__(self, given: str) -> str:
        """The pseudonym of an id; of a pseudonym, itself: an answer's id may be sent back."""
        if _MADE.fullmatch(given):
            return given
        digest = self._base.copy()
        digest.update(given.encode())
        return "~" + digest.hexdigest()[:32]
