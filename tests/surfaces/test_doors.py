"""Embedded engine, command line and server tell the same story."""

from penchant.testing import OperationTests


class TestDoors(OperationTests):
    pass
