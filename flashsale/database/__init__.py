"""Connections to the database, its schema and its pg_cron jobs."""
