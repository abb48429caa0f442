"""All routes of the HTTP API, below `/v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from web.api import audit, decisions, events, journeys, similar, site, vehicles, watching
from web.api.feed import Feed
from web.api.problems import Problem, add_problems, problem

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute
    from starlette.types import Receive, Scope, Send

PREFIX = "/v1"
#: A question's body: corrections name some hundred tracklets at most.
MAX_BODY_BYTES = 256 << 10
DESCRIPTION = """Where vehicles went, of one site of cameras.

Times are ISO 8601 in UTC. Lists come in pages: ask for `cursor` = `next` until it is null. What can't be answered is
told as `application/problem+json` (RFC 9457). Ids of vehicles and tracklets may be shortened. Who asks what is noted.
Pictures are found by addresses that are good for some minutes.
"""


def add_routes(app: FastAPI) -> None:
    """Makes the routes known."""
    app.state.feed = Feed(app.state.services.database)
    routers = (site, vehicles, journeys, decisions, watching, events, audit)
    for router in (room.router for room in routers):
        app.include_router(router, prefix=PREFIX, generate_unique_id_function=_named, max_body_size=MAX_BODY_BYTES)
    app.include_router(
        similar.router,
        prefix=PREFIX,
        generate_unique_id_function=_named,
        max_body_size=app.state.services.site.web.max_upload_bytes + MAX_BODY_BYTES,
        form_limits={"max_files": 1, "max_fields": 4, "max_part_size": 1024},
    )
    app.router.add_route(PREFIX + "/{rest:path}", _Nothing(), include_in_schema=False)  # type: ignore[arg-type]
    add_problems(app)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]


def _named(route: APIRoute) -> str:
    return route.name


class _Nothing:
    """Answers for what isn't there, which otherwise the page would be given for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem(404, "there is no such question; /openapi.json lists them")(scope, receive, send)


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version="1", description=DESCRIPTION, routes=app.routes)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
