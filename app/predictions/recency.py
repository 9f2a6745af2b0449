"""Which models were used last, and which one leaves first when memory is short."""

import threading
from collections import OrderedDict
from uuid import UUID

from app.predictions.model import ResidentModel


class RecentlyUsed:
    """Models by id, each in the order of its last use; for all threads at once.

    Those in production leave after all others.
    """

    def __init__(self) -> None:
        self._others: OrderedDict[UUID, ResidentModel] = OrderedDict()
        self._production: OrderedDict[UUID, ResidentModel] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._others) + len(self._production)

    def ids(self) -> list[UUID]:
        """Return the ids of all."""
        with self._lock:
            return [*self._others, *self._production]

    def use(self, model_id: UUID) -> ResidentModel | None:
        """Return the model, which is now the last used; None where it is not here."""
        with self._lock:
            for models in (self._production, self._others):
                found = models.get(model_id)
                if found is not None:
                    models.move_to_end(model_id)
                    return found
        return None

    def put(self, model: ResidentModel, *, production: bool) -> None:
        """Add a model as the last used one."""
        target, other = self._production, self._others
        if not production:
            target, other = other, target
        with self._lock:
            other.pop(model.id, None)
            target[model.id] = model

    def mark(self, model_id: UUID, *, production: bool) -> None:
        """Note whether the model is in production, where it is here."""
        source, target = self._others, self._production
        if not production:
            source, target = target, source
        with self._lock:
            if model_id in source:
                target[model_id] = source.pop(model_id)

    def drop(self, model_id: UUID) -> None:
        """Remove the model, where it is here."""
        with self._lock:
            self._others.pop(model_id, None)
            self._production.pop(model_id, None)

    def drop_first(self) -> ResidentModel | None:
        """Remove the model that leaves first and return it; None where there are none."""
        with self._lock:
            for models in (self._others, self._production):
                if models:
                    return models.popitem(last=False)[1]
        return None
