"""From an uploaded picture to vehicles that look like it."""
