"""Which tracklets are one vehicle. The core is pure and reads no clock: `worker` alone touches bus and database."""
