"""The HTTP API keeps what its description says, whatever it is asked: tried by Schemathesis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from storage.accounts import Role
from tests.web.api_site import fill
from tests.web.asking import account, small_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import APIOperation, BaseSchema, Case, CheckFunction

pytest_plugins = ("tests.web.pillow",)

#: Requests of each kind to each operation.
EXAMPLES = 12
# The stream of events has no end that a test could wait for: tests/web/test_api_events.py listens to it.
ENDLESS = "/v1/events"


@pytest.fixture
def headers() -> dict[str, str]:
    """What every request carries; filled by `description`."""
    return {}


@pytest.fixture
def description(tmp_path_factory: pytest.TempPathFactory, headers: dict[str, str]) -> Iterator[BaseSchema]:
    """The API's description of itself, with a small site behind it."""
    with small_site(tmp_path_factory.mktemp("site"), hosts=["testserver"]) as ask:
        with ask.services.database.transaction() as session:
            fill(session)
        account(ask.services.database, "ada", Role.ADMIN)
        headers |= ask.with_token("ada", Role.ADMIN).headers
        yield schemathesis.openapi.from_asgi("/openapi.json", ask.app, headers=headers)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_described(description: BaseSchema, headers: dict[str, str], mode: GenerationMode) -> None:
    """With requests as described, and with others, which must be refused: no answer is a fault of the server's."""
    tried = set()
    for found in description.exclude(path=ENDLESS).get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not _takes_anything(operation):
            continue

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def holds(case: Case[Any]) -> None:
            # No description can say which text is a cursor, which bytes are a picture, and which of two times is later.
            if mode is GenerationMode.POSITIVE and isinstance(case.query, dict):
                case.query.pop("cursor", None)
                if "start" in case.query:
                    case.query.pop("end", None)
            excluded: list[CheckFunction] = (
                [positive_data_acceptance] if case.operation.label == "POST /v1/similar" else []
            )
            case.call_and_validate(headers=headers, excluded_checks=excluded)

        holds()
        tried.add(operation.label)
    assert {"GET /v1/vehicles", "POST /v1/similar", "POST /v1/corrections"} <= tried


def _takes_anything(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    return bool(list(operation.iter_parameters()) or operation.body)
