"""The commands of `python -m storage` that explain a decision, change or confirm it, and take that back."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from storage.report import Format, Report, corrections_report, show
from storage.terminal import DatabaseUrl, OutputFormat, Person, person, reading, writing

if TYPE_CHECKING:
    from storage.history import Correction
    from storage.report import Value

Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why, for whoever asks later.")]
Tracklets = Annotated[
    list[str], typer.Argument(metavar="TRACKLET...", help="Their ids, or the first or last characters of each.")
]
_REVIEW_COLUMNS = (
    "kind",
    "probability",
    "tracklet",
    "vehicle",
    "started_at",
    "other_tracklet",
    "other_vehicle",
    "other_started_at",
    "bands",
    "reason",
)


def why(
    tracklet: Annotated[str, typer.Argument(metavar="TRACKLET", help="Its id, or the first or last characters of it.")],
    database: DatabaseUrl,
    by: Person = None,
) -> None:
    """Say why a tracklet belongs to its vehicle: who decided, what was weighed, what had been said before.

    The ids of a vehicle's tracklets are in the last column of its trajectory. What speaks for a link is given as the
    natural logarithm of how much likelier it makes it: +1 is 2.7 times as likely, -1 is 2.7 times less.

    Example: why gate/s1/7 --database sqlite:///demo.db
    """
    with reading(database, "why", by, tracklet) as session:
        from storage.explanation import explain, in_words

        for line in in_words(explain(session, tracklet)):
            sys.stdout.write(f"{line}\n")


def merge(
    keep: Annotated[str, typer.Argument(metavar="KEEP", help="The vehicle that remains, by the start of its id.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The one whose tracklets it is given.")],
    database: DatabaseUrl,
    by: Person = None,
    note: Note = "",
) -> None:
    """Say that two vehicles are one.

    The tracklets of OTHER go to KEEP. All tracklets of both are pinned: the matcher leaves them there from now on.

    Example: merge 3f2a 9c01 --note 'same dent' --database sqlite:///demo.db
    """
    with writing(database, "merge", by, keep, other=other, note=note) as session:
        from storage import corrections

        made = corrections.merge(session, keep, other, by=person(by), at=datetime.now(UTC), note=note)
    _tell(made)


def split(tracklets: Tracklets, database: DatabaseUrl, by: Person = None, note: Note = "") -> None:
    """Say that some tracklets of a vehicle are another one.

    They leave their vehicle together and become a new one. All tracklets of both are pinned.

    Example: split gate/s1/7 bridge/s1/2 --database sqlite:///demo.db
    """
    with writing(database, "split", by, tracklets[0], tracklets=tracklets, note=note) as session:
        from storage import corrections

        made = corrections.split(session, tracklets, by=person(by), at=datetime.now(UTC), note=note)
    _tell(made)


def move(
    tracklets: Tracklets,
    to: Annotated[str, typer.Option("--to", metavar="VEHICLE", help="Whose they are, by the start of its id.")],
    database: DatabaseUrl,
    by: Person = None,
    note: Note = "",
) -> None:
    """Say that some tracklets belong to another vehicle that is known.

    All tracklets of the vehicles concerned are pinned.

    Example: move gate/s1/7 --to 3f2a --database sqlite:///demo.db
    """
    with writing(database, "move", by, tracklets[0], tracklets=tracklets, to=to, note=note) as session:
        from storage import corrections

        made = corrections.move(session, tracklets, to, by=person(by), at=datetime.now(UTC), note=note)
    _tell(made)


def confirm(tracklets: Tracklets, database: DatabaseUrl, by: Person = None, note: Note = "") -> None:
    """Say that some tracklets are where they belong.

    These are pinned, and no others: each stays with its vehicle from now on.

    Example: confirm gate/s1/7 bridge/s1/2 --database sqlite:///demo.db
    """
    with writing(database, "confirm", by, tracklets[0], tracklets=tracklets, note=note) as session:
        from storage import corrections

        made = corrections.confirm(session, tracklets, by=person(by), at=datetime.now(UTC), note=note)
    _tell(made)


def undo(
    correction: Annotated[int, typer.Argument(metavar="CORRECTION", help="Its number, as `corrections` lists it.")],
    database: DatabaseUrl,
    by: Person = None,
    note: Note = "",
) -> None:
    """Take a correction back, a person's or the matcher's.

    Its tracklets go back to the vehicles they were of, and to whoever had decided so; after a correction of the
    matcher's they are pinned there, or it would do the same again. An undo can be undone too, which brings the
    correction back. What was corrected later on the same tracklets is to be undone first.

    Example: undo 12 --database sqlite:///demo.db
    """
    with writing(database, "undo", by, correction=correction, note=note) as session:
        from storage import corrections

        made = corrections.undo(session, correction, by=person(by), at=datetime.now(UTC), note=note)
    _tell(made)


def corrections(
    database: DatabaseUrl,
    people_only: Annotated[
        bool, typer.Option("--people-only", help="Leave out what the matcher's second look did.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List what was corrected, latest first: by whom, how many tracklets moved, and which are only confirmed.

    Example: corrections --people-only --database sqlite:///demo.db
    """
    with reading(database, "corrections", by, people_only=people_only, limit=limit) as session:
        from storage.history import corrections as find

        show(corrections_report(find(session, limit=limit, people_only=people_only)), output)


def review(
    database: DatabaseUrl,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List the links and the near misses that the matcher was least sure of, that first.

    `confirm TRACKLET OTHER` says that it was right. Where it was not: `split TRACKLET` for a link, and `merge` of the
    two vehicles for a near miss. What a person has decided is left out.

    Example: review --limit 10 --database sqlite:///demo.db
    """
    with reading(database, "review", by, limit=limit) as session:
        from storage.review import doubtful

        rows: list[tuple[Value, ...]] = [
            (
                one.kind,
                round(one.probability, 4),
                one.tracklet_id,
                one.vehicle_id,
                one.started_at,
                one.other_tracklet_id,
                one.other_vehicle_id,
                one.other_started_at,
                one.modality_pair,
                one.reason,
            )
            for one in doubtful(session, limit=limit)
        ]
        show(Report(_REVIEW_COLUMNS, rows, f"{len(rows)} doubtful"), output)


COMMANDS = (why, merge, split, move, confirm, undo, corrections, review)


def _tell(made: Correction) -> None:
    vehicles = sorted({change.after for change in made.moved})
    what = f"{_tracklets(len(made.moved))} moved to {', '.join(vehicles)}" if vehicles else "none moved"
    confirmed = len(made.changes) - len(made.moved)
    sys.stdout.write(
        f"correction {made.correction_id}, {made.kind} by {made.made_by}: {what}, {confirmed} confirmed; "
        f"undo {made.correction_id} takes it back\n"
    )


def _tracklets(count: int) -> str:
    return f"{count} tracklet{'' if count == 1 else 's'}"
