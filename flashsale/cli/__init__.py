"""The `flashsale` command: one file a command."""
