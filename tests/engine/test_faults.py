"""Faults by number: where each is tried, and those that need more than one room."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from penchant.engine import OPERATIONS, Engine
from tests.engine.lookers import NOW, lookers

TESTS = Path(__file__).resolve().parents[1]
TRIED = {
    1: ("store/test_store_crash.py", "test_killed_at_a_random_moment"),
    2: ("store/test_store_power.py", "test_power_cuts"),
    3: ("surfaces/test_overload.py", "test_a_full_disk"),
    4: ("store/test_store_power.py", "test_a_failed_sync_ends_acknowledging"),
    5: ("training/test_loop.py", "test_killed_and_resumed_gives_the_same_bits"),
    6: ("engine/test_swap.py", "test_killed_while_it_swaps"),
    7: ("engine/test_swap.py", "test_at_a_start_an_older_model_answers_marked_as_degraded"),
    8: ("engine/test_swap.py", "test_a_model_that_fails_is_taken_back"),
    9: ("engine/test_kafka.py", "test_a_poisonous_message_is_tried_three_times_and_passed_over"),
    10: ("surfaces/test_overload.py", "test_a_full_line_refuses_at_once_and_groups_what_waits"),
    11: ("surfaces/test_overload.py", "test_ten_times_the_load"),
    12: ("store/test_store_servers.py", "test_a_cache_that_does_not_answer"),
    13: ("store/test_store_servers.py", "test_a_connection_that_breaks"),
    14: ("store/test_store_delivery.py", "test_the_clock_jumps"),
    15: ("store/test_store_delivery.py", "test_any_delivery_leaves_the_same_state"),
    16: ("store/test_store_faults.py", "test_second_writer_is_told_who_writes"),
    17: ("store/test_store_bits.py", "test_every_flipped_bit_is_found_or_harmless"),
    18: ("surfaces/test_jobs.py", "test_a_process_that_dies_is_a_failed_job"),
    19: ("engine/test_backup.py", "test_what_a_newer_version_wrote_is_refused"),
    20: ("engine/test_faults.py", "test_20_somebody_is_erased_while_a_model_is_trained"),
    21: ("privacy/test_vault.py", "test_the_key_of_the_shop_is_rotated"),
}
NO_ASSISTANT = 22  # a language model that is gone: there is none


def test_every_fault_is_tried() -> None:
    assert sorted([*TRIED, NO_ASSISTANT]) == list(range(1, 23))
    for number, (file, name) in TRIED.items():
        assert f"def {name}(" in (TESTS / file).read_text("utf-8"), number
    assert "chat" not in OPERATIONS, "a language model that fails can be tried now"


@pytest.mark.parametrize("step", [1, 20, 64])
def test_20_somebody_is_erased_while_a_model_is_trained(tmp_path: Path, step: int) -> None:
    """The training goes on without them, and nothing half made of theirs is left or served."""
    steps, remaining = [0], []

    def erase() -> None:
        remaining.extend(engine.erase_user(user_id="person-03").remaining)
        steps.append(step)

    def progress(*_: Any) -> None:
        steps[0] += 1
        if steps[0] == step:
            other = threading.Thread(target=erase)
            other.start()
            other.join(20)

    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[lookers(tmp_path, "person-{:02}")])
        engine.progress = progress
        report = engine.train(models=["transitions"])
        assert steps[1:] == [step], "the erasure was done meanwhile"
        assert remaining == []
        assert report.promoted is not None
        assert engine.recommend(user_id="person-03").subject == "person-03"
        assert engine.erase_user(user_id="person-03").remaining == []
    for path in (tmp_path / "shop").rglob("*"):
        assert not path.is_file() or b"person-03" not in path.read_bytes(), path
