"""`/docs`: the API's description in a browser, from this machine alone.

FastAPI's own page loads Swagger UI from a public network, which a factory has not. The files come
with the package `fastapi-swagger`; only those are used of it.
"""

from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Shotline API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis], validatorUrl: null});
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
}
_KEPT = {"Cache-Control": "public, max-age=3600"}


@router.get("/docs")
def page() -> Response:
    """Answer the page."""
    return Response(_PAGE, headers=_HEADERS, media_type="text/html")


@router.get("/docs/start.js")
def start() -> Response:
    """Answer the script that starts it; inline it would need a weaker policy."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/swagger-ui.js")
def script() -> Response:
    """Answer Swagger UI."""
    return Response(_resource("swagger-ui-bundle.js"), 200, _KEPT, "text/javascript")


@router.get("/docs/swagger-ui.css")
def style() -> Response:
    """Answer Swagger UI's style."""
    return Response(_resource("swagger-ui.css"), 200, _KEPT, "text/css")


def _resource(name: str) -> bytes:
    return (files("fastapi_swagger") / "resources" / name).read_bytes()
