"""What is noted of a deed that could not be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storage.asking import Inquiry, decided
from storage.audit import entries
from storage.errors import CorrectionError, StorageError, TransientStorageError

if TYPE_CHECKING:
    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.mark.parametrize(
    ("error", "actions"), [(CorrectionError("nothing would change"), ["merge?"]), (TransientStorageError("busy"), [])]
)
def test_a_refusal_is_noted_as_a_question_and_a_busy_database_is_not(
    database: Database, error: StorageError, actions: list[str]
) -> None:
    with pytest.raises(type(error)), decided(database, Inquiry("merge", "anna", "v1")):
        raise error
    with database.snapshot() as session:
        assert [one.action for one in entries(session)] == actions
