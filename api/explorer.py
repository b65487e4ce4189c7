"""The page at /graphql for a browser: own and small, as GraphiQL would come from a CDN."""

from importlib.resources import files
from typing import Final

from ariadne.explorer import Explorer

PAGE: Final = (files("api") / "explorer.html").read_text("utf-8")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
        " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


class StaticExplorer(Explorer):
    """The page as Ariadne's explorer."""

    def html(self, _request: object) -> str:
        """The page."""
        return PAGE
