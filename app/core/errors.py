"""The service's leaves of the one error tree, whose root is in `models.errors`.

    ShotlineError
    ├── BadInput …              see models.errors
    │   ├── BadRequest          a request that cannot be read
    │   ├── BadUpload           an upload of which nothing can be used, or an unsafe archive
    │   └── BadReference        a name that stands for nothing, such as an unknown label
    ├── Unauthenticated         no API key, or one that is not valid
    ├── TooManyFailures         wrong keys, one after the other
    ├── Forbidden               the key's role does not allow this
    ├── NotFound                no such thing, or not for this key
    ├── MethodNotAllowed        the address is right and the method is not
    ├── Conflict                the present state does not allow it
    │   ├── Duplicate           the name is taken
    │   ├── Frozen              it can no longer be changed
    │   ├── ProjectFrozen       someone stopped all changes of the project
    │   └── GatesNotPassed      a version has not shown that it may be promoted
    ├── TooLarge                a body, file or archive over the limit
    ├── TooSlow                 a body that does not come on
    ├── UnsupportedType         a content type that this address does not read
    ├── Unavailable             something that the answer needs cannot be reached
    ├── Damaged                 stored bytes that are not what their digest says
    └── DeadlinePassed          the answer was not ready by the time that the caller gave

HTTP statuses are chosen in `app.http.problems` alone.
"""

from collections.abc import Mapping
from typing import Any

from models.errors import BadInput, ShotlineError


class BadRequest(BadInput):
    """A request that cannot be read."""


class FileVerdict(dict[str, object]):
    """What became of one file of an upload, as JSON; see `app.images.schemas.FileResult`."""


class BadUpload(BadInput):
    """An upload of which nothing can be used.

    Args:
        results: the verdict on each file, where the upload got so far.
    """

    def __init__(
        self,
        problem: str,
        *,
        fix: str,
        field: str | None = None,
        results: list[FileVerdict] | None = None,
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.results = results or []


class BadReference(BadInput):
    """A name in the request that stands for nothing."""


class Unauthenticated(ShotlineError):
    """No API key, or one that is not valid."""


class TooManyFailures(ShotlineError):
    """Wrong API keys, one after the other.

    Args:
        retry_after: seconds after which another one is looked at.
    """

    def __init__(
        self, problem: str, *, fix: str, field: str | None = None, retry_after: float
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.retry_after = retry_after


class Forbidden(ShotlineError):
    """The key's role does not allow this."""


class NotFound(ShotlineError):
    """No such thing, or not for this key."""

    @classmethod
    def of(cls, kind: str, identifier: object) -> "NotFound":
        """Return the error for an id or name of `kind` that nothing visible to this key has."""
        return cls(
            f"There is no {kind} {str(identifier)!r} that this API key may see.",
            fix=f"Check the {kind}, or list those there are.",
            field=kind.replace(" ", "_"),
        )


class MethodNotAllowed(ShotlineError):
    """The address is right and the method is not."""


class Conflict(ShotlineError):
    """The present state does not allow it."""


class Duplicate(Conflict):
    """The name is taken."""


class Frozen(Conflict):
    """It can no longer be changed."""


class ProjectFrozen(Conflict):
    """Someone stopped all changes of the project; predictions go on."""


class GatesNotPassed(Conflict):
    """A version has not shown that it may be promoted.

    Args:
        gates: what is known of them, as JSON; see `app.registry.gates.summary`.
    """

    def __init__(
        self,
        problem: str,
        *,
        fix: str,
        field: str | None = None,
        gates: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.gates = dict(gates or {})


class TooLarge(ShotlineError):
    """A body, file or archive over the limit."""


class TooSlow(ShotlineError):
    """A body that does not come on."""


class UnsupportedType(ShotlineError):
    """A content type that this address does not read."""


class Unavailable(ShotlineError):
    """Something that the answer needs cannot be reached.

    Args:
        retry_after: seconds after which it is worth trying again.
    """

    def __init__(
        self, problem: str, *, fix: str, field: str | None = None, retry_after: float = 5.0
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.retry_after = retry_after


class Damaged(ShotlineError):
    """Stored bytes that are not what their digest says."""


class DeadlinePassed(ShotlineError):
    """The answer was not ready by the time that the caller gave."""
