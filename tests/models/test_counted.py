from penchant.testing import ModelTests


class TestPopularity(ModelTests):
    kind = "popularity"
    personal = False


class TestPopularityByKind(ModelTests):
    kind = "popularity"
    config = {"kind_weights": {"purchase": 3.0, "view": 0.5}}
    personal = False


class TestRecentPopularity(ModelTests):
    kind = "recent_popularity"
    personal = False


class TestItemKNN(ModelTests):
    kind = "item_knn"


class TestTransitions(ModelTests):
    kind = "transitions"


class TestEASE(ModelTests):
    kind = "ease"


class TestIALS(ModelTests):
    kind = "ials"
    config = {"embedding_size": 8}
