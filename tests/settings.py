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
# Each test process has databases of its own: parallel workers never meet, and two runs on one checkout hardly ever do.
worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
run = os.getppid() if worker else os.getpid()
os.environ["PAYONCE_REDIS_DATABASE"] = str(2 + run % 60 * 4 + (int(worker.group()) % 4 if worker else 0))

from config.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES["default"]["TEST"] = {"NAME": f"test_payonce_{os.getpid()}"}  # noqa: F405
