"""Settings of the tests: the reference project on the `test` servers, with secrets of this run alone.

Everything is put into the environment first, so that the processes that tests start see the same project.
"""

import os
import re
import secrets

os.environ["PAYONCE_PROFILE"] = "test"
os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(48))
os.environ.setdefault(
    "PAYONCE_SANDBOX_SECRETS",
    f'{{"sandbox_a": "{secrets.token_urlsafe(32)}", "sandbox_b": "{secrets.token_urlsafe(32)}"}}',
)
# Each parallel worker has a Redis database of its own, as it has a PostgreSQL database of its own.
worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
os.environ["PAYONCE_REDIS_DATABASE"] = str(int(worker.group()) + 2) if worker else "1"

from config.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
