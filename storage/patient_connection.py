"""A connection to PostgreSQL that does not wait for ever. Imported only where such a database is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from psycopg.abc import PQGen

_Answer = TypeVar("_Answer")
#: Between two looks at whether somebody has pressed Ctrl-C.
_INTERRUPT_S = 0.1


class PatientConnection(psycopg.Connection[Any]):
    """Gives up a server that takes what it is sent, and says nothing.

    TCP's own time-outs tell a machine that is gone. They don't tell a server whose disk hangs, or a proxy whose other
    end is gone: there the kernel goes on answering.

    Attributes:
        patience_s: How long one answer may take; then the connection is closed.
    """

    patience_s: float | None = None

    def wait(self, gen: PQGen[_Answer], interval: float = _INTERRUPT_S, timeout: float | None = None) -> _Answer:
        """See `psycopg.Connection.wait`.

        Raises:
            psycopg.OperationalError: No answer came in time, and the connection is closed; or as psycopg has it.
        """
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            # Only one whose answer is still to come is in this state.
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {self.patience_s:g} s") from error
