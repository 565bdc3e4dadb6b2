import pytest

from penchant.core.errors import ArtifactError
from penchant.engine._promotion import Pointer, read_pointer, step_back, switch, write_pointer


def test_nothing_promoted_yet(tmp_path):
    assert read_pointer(tmp_path) is None
    with pytest.raises(ArtifactError, match="no model served before"):
        step_back(tmp_path)


def test_switch_and_step_back(tmp_path):
    switch(tmp_path, "a")
    new, previous = switch(tmp_path, "b")
    assert (new.promoted, new.previous, previous) == ("b", ("a",), "a")
    switch(tmp_path, "b")  # again: nothing changes
    assert read_pointer(tmp_path) == new
    back, left = step_back(tmp_path)
    assert (back.promoted, left) == ("a", "b")


def test_a_damaged_pointer_counts_as_none(tmp_path):
    write_pointer(tmp_path, Pointer(promoted="a"))
    (tmp_path / "promoted.json").write_bytes(b'{"promoted": 3')
    assert read_pointer(tmp_path) == Pointer()
