"""What can go wrong in this room. Every message is one line that names the database and hides its password."""

from __future__ import annotations


class StorageError(Exception):
    """The database, or a file beside it, can't be used: unreachable, full, locked, read-only or damaged."""


class TransientStorageError(StorageError):
    """What passes by itself: another writer was quicker or slow, the server is being restarted or has gone silent.

    Nothing was stored; but where the connection was lost while committing, that isn't known.
    """


class NewerSchemaError(StorageError):
    """A later version of the program has migrated this database."""


class OffsetConflictError(StorageError):
    """Another consumer has advanced the offset: roll back and give the partition up."""


class QuestionError(StorageError):
    """A question that can't be asked: a time without its zone, a window that ends before it begins."""


class VehicleNotFoundError(StorageError):
    """No vehicle of that id, or more than one whose id begins so."""


class TrackletNotFoundError(StorageError):
    """No tracklet of that id, or more than one whose id begins or ends so."""


class CorrectionError(StorageError):
    """A correction that can't be made: it would change nothing, or something later stands in its way."""


class CorrectionNotFoundError(CorrectionError):
    """No such correction."""
