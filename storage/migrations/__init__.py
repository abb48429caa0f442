"""The schema's history, applied by `storage.database.Database.open`."""
