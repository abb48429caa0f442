"""The command of `python -m storage` on PostgreSQL's own index of vectors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from storage.terminal import DatabaseUrl, Person, opened


def index_vectors(
    database: DatabaseUrl,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin from nothing: once a site has grown tenfold, or got a new embedder.")
    ] = False,
    by: Person = None,
) -> None:
    """Let pgvector index what vehicles look like, so that `similar` needn't read all of it; may take minutes.

    Wants PostgreSQL with the extension vector, 0.8 or newer; does nothing elsewhere. Ask again from time to time: what
    is newer than the index is compared one by one. Cameras and matchers may be running.

    Example: index-vectors --database postgresql://me@localhost/site
    """
    with opened(database, "index-vectors", by, anew=anew) as found:
        from storage import vector_table

        with found.transaction() as session:
            if not vector_table.is_offered(session):
                sys.stdout.write("no extension vector, 0.8 or newer: similar goes on comparing with all looks\n")
                return
            added = vector_table.index_vectors(session, anew=anew)
    sys.stdout.write(f"{added} looks added to the index\n")


COMMANDS = (index_vectors,)
