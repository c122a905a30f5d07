"""The database: migrations, sql/, what differs from them, pg_cron."""
