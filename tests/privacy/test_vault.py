"""Keys of people: what they seal opens only there and with them, and a destroyed one leaves no bytes."""

from __future__ import annotations

import base64
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core.errors import ShopError, StorageError
from penchant.privacy import Vault, keys_from_environment

ONE, TWO = b"1" * 32, b"2" * 32


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault.db", [ONE])


@given(st.text(), st.binary())
@settings(max_examples=30, deadline=None)
def test_what_is_sealed_opens(tmp_path_factory: pytest.TempPathFactory, subject: str, plain: bytes) -> None:
    subject = subject.encode("utf-8", "replace").decode()
    vault = Vault(tmp_path_factory.mktemp("v") / "vault.db", [ONE])
    sealed = vault.encrypt(subject, "text", plain)
    assert len(sealed) == len(plain) + 28
    assert vault.decrypt(subject, "text", sealed) == plain
    vault.close()


def test_a_seal_is_bound_to_its_place(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.encrypt("u1", "text", b"secret")
    vault.encrypt("u2", "text", b"x")
    for subject, field, content in (
        ("u1", "query", sealed),
        ("u2", "text", sealed),
        ("u1", "text", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        ("u1", "text", b"short"),
        ("u1", "text", b""),
    ):
        with pytest.raises(StorageError):
            vault.decrypt(subject, field, content)
    other = Vault(tmp_path / "other.db", [ONE])
    other.encrypt("u1", "text", b"x")
    with pytest.raises(StorageError):
        other.decrypt("u1", "text", sealed)


def test_keys_are_on_disk_after_flush_and_wrapped(vault: Vault) -> None:
    sealed = vault.encrypt("u1", "text", b"secret")
    early = Vault(vault.path, [ONE])
    with pytest.raises(StorageError, match="destroyed"):
        early.decrypt("u1", "text", sealed)
    vault.flush()
    assert Vault(vault.path, [ONE], readonly=True).decrypt("u1", "text", sealed) == b"secret"
    assert vault.path.stat().st_mode & 0o077 == 0


def test_a_destroyed_key_leaves_no_bytes(vault: Vault) -> None:
    sealed = {name: vault.encrypt(name, "text", b"secret") for name in ("u1", "u2", "u3")}
    vault.flush()
    db = sqlite3.connect(vault.path)
    (wrapped,) = db.execute("SELECT wrapped FROM deks WHERE person = ?", (vault.person("u2"),)).fetchone()
    db.close()
    assert vault.holds(wrapped)
    assert vault.destroy(vault.person("u2")) == 1
    assert not vault.holds(wrapped)
    for path in vault.path.parent.iterdir():
        assert wrapped not in path.read_bytes()
    with pytest.raises(StorageError, match="destroyed"):
        vault.decrypt("u2", "text", sealed["u2"])
    assert vault.decrypt("u1", "text", sealed["u1"]) == b"secret"
    assert vault.destroy(vault.person("u2")) == 0
    again = vault.encrypt("u2", "text", b"new")  # another key: the old seals stay closed
    assert vault.decrypt("u2", "text", again) == b"new"
    with pytest.raises(StorageError):
        vault.decrypt("u2", "text", sealed["u2"])


def test_the_key_of_the_shop_is_rotated(vault: Vault) -> None:
    sealed = vault.encrypt("u1", "text", b"secret")
    vault.close()
    with pytest.raises(ShopError, match="not given"):
        Vault(vault.path, [TWO])
    reader = Vault(vault.path, [TWO, ONE], readonly=True)  # reads by the old key until a writer came
    assert reader.decrypt("u1", "text", sealed) == b"secret"
    reader.close()
    Vault(vault.path, [TWO, ONE]).close()
    assert Vault(vault.path, [TWO]).decrypt("u1", "text", sealed) == b"secret"
    with pytest.raises(ShopError, match="not given"):
        Vault(vault.path, [ONE])


def test_the_key_comes_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENCHANT_KEK", raising=False)
    monkeypatch.delenv("PENCHANT_KEK_FILE", raising=False)
    with pytest.raises(ShopError, match="PENCHANT_KEK"):
        keys_from_environment()
    one, two = (base64.b64encode(key).decode() for key in (ONE, TWO))
    (tmp_path / "kek").write_text(f"{two}\n{one}\n")
    monkeypatch.setenv("PENCHANT_KEK_FILE", str(tmp_path / "kek"))
    assert keys_from_environment() == [TWO, ONE]
    monkeypatch.setenv("PENCHANT_KEK", one)
    assert keys_from_environment() == [ONE]
    for wrong in ("short", "é", base64.b64encode(os.urandom(31)).decode()):
        monkeypatch.setenv("PENCHANT_KEK", wrong)
        with pytest.raises(ShopError, match="32 bytes"):
            keys_from_environment()


def test_a_newer_file_is_refused(vault: Vault) -> None:
    vault.close()
    db = sqlite3.connect(vault.path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ShopError, match="newer version"):
        Vault(vault.path, [ONE])
