"""The schema's history, applied by `storage.database.Database.open`."""

#: The newest revision.
HEAD = "0008"
