"""The page's seven views. Importing this makes them known."""

from web.pages import health, live, review, search, vehicle, vehicles, watch  # noqa: F401
