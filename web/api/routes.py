"""All routes of the HTTP API, below `/v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from web.api import audit, decisions, events, health, journeys, similar, site, vehicles, watching
from web.api.feed import Feed
from web.api.problems import Problem, add_problems, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

PREFIX = "/v1"
ROOMS = (site, health, vehicles, journeys, decisions, similar, watching, events, audit)
#: How somebody proves who they are; on this machine, while there are no accounts, nobody needs to.
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "Made by `python -m web token make`."},
    "login": {
        "type": "apiKey",
        "in": "cookie",
        "name": "vehicle-tracker",
        "description": "Set by the login page; over TLS it is called `__Host-vehicle-tracker`.",
    },
}
DESCRIPTION = """Where vehicles went, of one site of cameras.

Times are ISO 8601 in UTC. Lists come in pages: ask for `cursor` = `next` until it is null. What can't be answered is
told as `application/problem+json` (RFC 9457). Ids of vehicles and tracklets may be shortened. Who asks what is noted.
Pictures are found by addresses that are good for some minutes.
"""


def add_routes(app: FastAPI) -> None:
    """Makes the routes known."""
    app.state.feed = Feed(app.state.services.database)
    for room in ROOMS:
        app.include_router(
            room.router,
            prefix=PREFIX,
            generate_unique_id_function=_named,
            # Of an uploaded picture's form; how long it may be, the guard knows.
            form_limits={"max_files": 1, "max_fields": 4, "max_part_size": 1024},
        )
    known = [route for room in ROOMS for route in room.router.routes if isinstance(route, APIRoute)]
    app.router.add_route(PREFIX + "/{rest:path}", _Nothing(known), include_in_schema=False)  # type: ignore[arg-type]
    add_problems(app)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]


def _named(route: APIRoute) -> str:
    return route.name


class _Nothing:
    """Answers for what isn't there, for which otherwise the page would."""

    def __init__(self, known: Sequence[APIRoute]) -> None:
        self._known = [(compile_path(PREFIX + route.path)[0], route.methods) for route in known]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = sorted(
            {name for pattern, names in self._known if pattern.match(scope["path"]) for name in names or ()}
        )
        if methods:
            answer = problem(405, f"this is asked by {' or '.join(methods)}", {"Allow": ", ".join(methods)})
        else:
            answer = problem(404, "there is no such question; /openapi.json lists them")
        await answer(scope, receive, send)


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version="1", description=DESCRIPTION, routes=app.routes)
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SECURITY
        schema["security"] = [{name: []} for name in SECURITY]
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
