import json
import pickle

import numpy as np
import pytest

from penchant.core import Run
from penchant.core.errors import ArtifactError
from penchant.models import Transitions
from penchant.testing import markov_snapshot
from penchant.training import fit_model, list_artifacts, load_artifact, read_artifact, save_artifact


@pytest.fixture
def snapshot():
    return markov_snapshot(users=60, items=12)


@pytest.fixture
def model(snapshot):
    return fit_model("transitions", snapshot, {}, Run())


def save(root, model, snapshot, **extra):
    return save_artifact(root, model, kind="transitions", as_of=snapshot.as_of, items=snapshot.items, **extra)


def test_round_trip(tmp_path, model, snapshot):
    artifact = save(tmp_path, model, snapshot, facts={"seen": "allow"})
    loaded = load_artifact(tmp_path, artifact.id)
    assert loaded.artifact == artifact
    assert loaded.items.ids == snapshot.items.ids
    np.testing.assert_array_equal(loaded.model.related(np.arange(13)), model.related(np.arange(13)))


def test_same_content_same_id(tmp_path, model, snapshot):
    first = save(tmp_path, model, snapshot).id
    assert save(tmp_path, model, snapshot).id == first
    assert len(list_artifacts(tmp_path)) == 1
    assert save(tmp_path, model, snapshot, facts={"seen": "exclude"}).id != first


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors", "items.json"])
def test_a_changed_byte_is_noticed(tmp_path, model, snapshot, name):
    artifact = save(tmp_path, model, snapshot)
    file = tmp_path / artifact.id / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path, artifact.id)


@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
def test_a_missing_file_is_an_artifact_error(tmp_path, model, snapshot, name):
    artifact = save(tmp_path, model, snapshot)
    (tmp_path / artifact.id / name).unlink()
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path, artifact.id)


def test_a_pickle_posing_as_safetensors_is_refused(tmp_path, model, snapshot, monkeypatch):
    import penchant.training._artifact as module

    artifact = save(tmp_path, model, snapshot)
    (tmp_path / artifact.id / "tensors.safetensors").write_bytes(pickle.dumps({"a": 1}))
    monkeypatch.setattr(module, "_read", lambda path, digest: path.read_bytes())  # even past the hash
    with pytest.raises(ArtifactError, match="not a usable transitions model"):
        load_artifact(tmp_path, artifact.id)


def test_nan_is_refused(tmp_path, model, snapshot):
    broken = Transitions(
        model.config, model.indptr, model.indices, np.full_like(model.data, np.nan), model.popular
    )
    with pytest.raises(ArtifactError, match="no numbers"):
        save(tmp_path, broken, snapshot)
    assert list_artifacts(tmp_path) == []


@pytest.mark.parametrize("name", ["../../etc", "", "nothere", "a/b"])
def test_strange_ids(tmp_path, name):
    with pytest.raises(ArtifactError):
        read_artifact(tmp_path, name)


def test_the_manifest_is_json_a_person_can_read(tmp_path, model, snapshot):
    artifact = save(tmp_path, model, snapshot)
    manifest = json.loads((tmp_path / artifact.id / "manifest.json").read_text())
    assert manifest["kind"] == "transitions"
    assert set(manifest["files"]) == {"tensors.safetensors", "items.json"}


def test_no_half_written_folder_is_listed(tmp_path, model, snapshot):
    artifact = save(tmp_path, model, snapshot)
    (tmp_path / ".scratch").mkdir()
    (tmp_path / "half").mkdir()
    assert [a.id for a in list_artifacts(tmp_path)] == [artifact.id]
