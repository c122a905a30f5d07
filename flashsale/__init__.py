"""The command line of flashsale, and what it needs: a private cluster, migrations, the scheduler."""
