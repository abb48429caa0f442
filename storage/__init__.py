"""What is known of vehicles, kept in SQLite or PostgreSQL: written by the matcher, read by everybody else."""
