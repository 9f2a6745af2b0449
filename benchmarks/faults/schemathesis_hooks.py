"""What schemathesis cannot make from a schema: photographs, archives, and ids worth keeping."""

import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

from benchmarks.faults.guarded import archive_of, photograph

_LONGEST_WAIT = 300  # that is allowed; there is no worker
OWN_KEY = "SHOTLINE_OWN_KEY_ID"
_ANOTHER = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"

_PHOTOGRAPHS = [photograph(n, size) for n, size in enumerate((1, 16, 64))]
_ARCHIVES = [
    archive_of({f"{label}/{n}.png": photograph(50 + 10 * label + n) for n in range(2)})
    for label in range(3)
]

# Some are what they say; the rest is whatever comes to mind.
_images = st.one_of(st.sampled_from(_PHOTOGRAPHS), st.binary(max_size=200))
_archives = st.one_of(st.sampled_from(_ARCHIVES), st.binary(max_size=200))

schemathesis.openapi.media_type("image/*", _images, aliases=["image/png", "image/jpeg"])
schemathesis.openapi.media_type(
    "application/zip",
    _archives,
    aliases=[
        "application/gzip",
        "application/x-gzip",
        "application/x-tar",
        "application/x-zip-compressed",
    ],
)


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext,  # noqa: ARG001 - the hook's form
    case: "schemathesis.Case[Any]",
    kwargs: dict[str, Any],  # noqa: ARG001
) -> None:
    """Keep the key that all this is asked with, without which it ends; wait for no worker."""
    if case.path_parameters.get("key") == os.environ.get(OWN_KEY):
        case.path_parameters["key"] = _ANOTHER
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 0 < wait <= _LONGEST_WAIT:
        case.query["wait"] = 0
