"""The page at /graphql for a browser: own and small, as GraphiQL would come from a CDN."""

from importlib.resources import files
from typing import Final

PAGE: Final = (files("api") / "explorer.html").read_text("utf-8")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
        " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
