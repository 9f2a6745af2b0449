"""Which model leaves first."""

from uuid import UUID

from app.core.ids import new_id
from app.predictions.model import ResidentModel
from app.predictions.recency import RecentlyUsed
from models.imaging import View


def model() -> ResidentModel:
    return ResidentModel(new_id(), new_id(), 1, "d", "b", "bd", (), (), View(), None, None)


def order(models: RecentlyUsed) -> list[UUID]:
    gone = []
    while (found := models.drop_first()) is not None:
        gone.append(found.id)
    return gone


def test_the_least_recently_used_leaves_first() -> None:
    models, (a, b, c) = RecentlyUsed(), (model(), model(), model())
    for one in (a, b, c):
        models.put(one, production=False)
    assert models.use(a.id) is a
    assert models.use(new_id()) is None
    assert len(models) == 3
    assert order(models) == [b.id, c.id, a.id]
    assert len(models) == 0


def test_production_leaves_last() -> None:
    models, (a, b, c, d) = RecentlyUsed(), (model(), model(), model(), model())
    for one in (a, b, c, d):
        models.put(one, production=one in (a, b))
    models.mark(a.id, production=False)
    models.mark(d.id, production=True)
    models.mark(new_id(), production=True)
    assert order(models) == [c.id, a.id, b.id, d.id]


def test_what_is_put_again_or_dropped_is_there_once_or_not() -> None:
    models, a, b = RecentlyUsed(), model(), model()
    models.put(a, production=True)
    models.put(b, production=True)
    models.put(a, production=False)
    models.drop(b.id)
    models.drop(b.id)
    assert models.ids() == [a.id]
    assert order(models) == [a.id]
