import pytest

from penchant.testing import ModelTests

pytest.importorskip("torch")


class TestSequence(ModelTests):
    kind = "sequence"
    config = {"size": "tiny", "epochs": 40, "dropout": 0.1}
    quick = {"epochs": 1}
    tolerance = 1e-4  # the graph adds up in another order for another width
