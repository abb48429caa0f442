"""The page and the HTTP API: questions and corrections, for people and programs."""
