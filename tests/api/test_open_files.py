"""Open files: the soft limit is raised."""

import resource

from flashsale.database.seed import APP_ROLE
from tests.support.http import running_server
from tests.support.processes import gunicorn


def test_the_soft_limit_is_raised_to_the_hard_limit(cluster, db, tmp_path):
    with running_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "log", nofile=(256, 1000)):
        master, workers = gunicorn()
        for pid in (master, *workers):
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (1000, 1000)
