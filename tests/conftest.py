"""Before any test imports `models`: shapes and types of its arguments are checked from here on."""

from jaxtyping import install_import_hook

install_import_hook("models", "beartype.beartype")
