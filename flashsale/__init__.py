"""The `flashsale` command: local start, migrations, doctor, rehearsal and the operators' commands."""
