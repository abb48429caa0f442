"""Real servers and faults for tests: each module starts one kind, or skips with a reason where it is absent."""
