from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.posts import Posts

ANNOTATED = (Pair("c", "B", True, ((0, 1),)), Pair("a", "B", False), Pair("a", "A", True))
CORPUS = Corpus(Posts.of({"a": "x", "b": "y", "c": "z"}), {"A": "one", "B": "two"}, ANNOTATED)


def test_pairs_of_posts_are_annotated_or_not() -> None:
    table = CORPUS.pairs_of(("c", "a"))
    assert list(table) == [Pair("c", "A", False), ANNOTATED[0], ANNOTATED[2], ANNOTATED[1]]
    assert table.met.tolist() == [pair.met for pair in table] == [False, True, True, False]
    assert table.lost.tolist() == [False, False, True, False]
    assert [table.key(place) for place in range(4)] == [(pair.post_id, pair.criterion) for pair in table]


def test_selecting_pairs() -> None:
    table = CORPUS.pairs_of(("c", "a"))
    assert list(table.take(table.met)) == [ANNOTATED[0], ANNOTATED[2]]
    assert list(table[1:3]) == [table[1], table[2]]
    assert len(CORPUS.pairs_of(())) == 0
