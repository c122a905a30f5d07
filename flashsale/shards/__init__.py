"""Several databases on the command line (docs/shards.md)."""
