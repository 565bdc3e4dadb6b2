"""What may be known of people: sealed texts under a key for each person, consent, pseudonyms."""

from typing import TYPE_CHECKING

from penchant.core import load_on_use
from penchant.privacy._consent import Choice, ConsentBook
from penchant.privacy._pseudonyms import Pseudonyms
from penchant.privacy._secret import own_secret

if TYPE_CHECKING:
    from penchant.privacy._vault import Vault, keys_from_environment

_LAZY = {"Vault": "penchant.privacy._vault", "keys_from_environment": "penchant.privacy._vault"}

__all__ = ["Choice", "ConsentBook", "Pseudonyms", "Vault", "keys_from_environment", "own_secret"]


__getattr__ = load_on_use(__name__, _LAZY)
