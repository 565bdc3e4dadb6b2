"""The one door: operations on a shop, from which every surface is derived."""

from typing import TYPE_CHECKING

from penchant.core import load_on_use
from penchant.engine._access import CALLER, Caller, log_access
from penchant.engine._collect_requests import *  # noqa: F403
from penchant.engine._collect_requests import __all__ as _collect_all
from penchant.engine._engine import Engine
from penchant.engine._experiment_requests import *  # noqa: F403
from penchant.engine._experiment_requests import __all__ as _experiments_all
from penchant.engine._govern_requests import *  # noqa: F403
from penchant.engine._govern_requests import __all__ as _govern_all
from penchant.engine._interest_requests import *  # noqa: F403
from penchant.engine._interest_requests import __all__ as _interests_all
from penchant.engine._json import check_number, strict_json
from penchant.engine._operation import OPERATIONS, QUICK, Operation, Scope
from penchant.engine._replay_requests import *  # noqa: F403
from penchant.engine._replay_requests import __all__ as _replay_all
from penchant.engine._requests import *  # noqa: F403
from penchant.engine._requests import __all__ as _requests_all
from penchant.engine._training_requests import *  # noqa: F403
from penchant.engine._training_requests import __all__ as _training_all
from penchant.engine._wire import (
    RESPONSE_HEADER,
    Problem,
    alternatives,
    decode_response,
    error_classes,
    error_of,
    problem_of,
    renamed,
    renamed_problem,
    trace_of,
)

if TYPE_CHECKING:
    from penchant.data import Health, render_health_text
    from penchant.engine._jobs import Jobs, JobStatus
    from penchant.engine._keys import KEY_PATTERN, Grant, Keyring
    from penchant.engine._model_settings import built_in_settings
    from penchant.engine._remote import HttpRemote
    from penchant.engine._shop import ShopConfig

_LAZY = {
    "Grant": "penchant.engine._keys",
    "Health": "penchant.data",
    "HttpRemote": "penchant.engine._remote",
    "JobStatus": "penchant.engine._jobs",
    "Jobs": "penchant.engine._jobs",
    "KEY_PATTERN": "penchant.engine._keys",
    "Keyring": "penchant.engine._keys",
    "ShopConfig": "penchant.engine._shop",
    "built_in_settings": "penchant.engine._model_settings",
    "render_health_text": "penchant.data",
}

__all__ = [
    "CALLER",
    "KEY_PATTERN",
    "OPERATIONS",
    "QUICK",
    "RESPONSE_HEADER",
    "Caller",
    "Engine",
    "Grant",
    "Health",
    "HttpRemote",
    "JobStatus",
    "Jobs",
    "Keyring",
    "Operation",
    "Problem",
    "Scope",
    "ShopConfig",
    "alternatives",
    "built_in_settings",
    "check_number",
    "decode_response",
    "error_classes",
    "error_of",
    "log_access",
    "problem_of",
    "render_health_text",
    "renamed",
    "renamed_problem",
    "strict_json",
    "trace_of",
    *_collect_all,
    *_experiments_all,
    *_govern_all,
    *_interests_all,
    *_replay_all,
    *_requests_all,
    *_training_all,
]


__getattr__ = load_on_use(__name__, _LAZY)
