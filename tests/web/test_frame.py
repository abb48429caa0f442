"""What a view says where it can't be shown, and to whom."""

from __future__ import annotations

import warnings
from typing import Any, cast

import pytest

from storage.accounts import Role
from storage.errors import NewerSchemaError, QuestionError, StorageError, TransientStorageError, VehicleNotFoundError
from web.callers import Caller

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.frame import View, told

_WHERE = "database sqlite:////srv/site.db: unable to open database file"


def _told(role: Role, error: StorageError) -> str:
    return told(View(cast("Any", None), Caller("vera", role)), "/", error)


@pytest.mark.parametrize("kind", [StorageError, TransientStorageError, NewerSchemaError])
def test_where_the_database_lies_is_told_to_operators_alone(kind: type[StorageError]) -> None:
    assert _told(Role.OPERATOR, kind(_WHERE)) == _WHERE
    assert "srv" not in _told(Role.VIEWER, kind(_WHERE))


@pytest.mark.parametrize("kind", [QuestionError, VehicleNotFoundError])
def test_what_is_wrong_with_a_question_is_told_to_whoever_asked(kind: type[StorageError]) -> None:
    assert _told(Role.VIEWER, kind("vehicle nobody: not known")) == "vehicle nobody: not known"
