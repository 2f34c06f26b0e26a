"""What `make demo` leaves running: where to look, and who may."""

import secrets
import subprocess
from collections.abc import Iterator

from config import services
from config.demo.site import Site
from config.environment import CHECKOUT
from config.processes import ProcessError

OPERATOR = "operator"
PASSWORD_VARIABLE = "PAYONCE_DEMO_PASSWORD"
MAKE_OPERATOR = f"""
import os
from django.contrib.auth import get_user_model
users = get_user_model()
user, _ = users.objects.get_or_create(username="{OPERATOR}")
user.is_staff = user.is_superuser = user.is_active = True
user.set_password(os.environ["{PASSWORD_VARIABLE}"])
user.save()
"""


def ready_lines(site: Site) -> Iterator[str]:
    """One line for each place worth looking at: `READY <name> <url>`, and the operator's login."""
    unpaid = site.place("unpaid", 3500)
    password = make_operator(site)
    yield f"READY cashier {unpaid.cashier_url}"
    yield f"READY wallet {site.supervisor.urls['sandbox']}/wallet/"
    yield f"READY admin {site.supervisor.urls['admin']}"
    yield f"READY docs {site.web}/api/docs/"
    yield f"LOGIN admin {OPERATOR} {password}"


def make_operator(site: Site) -> str:
    """Make the operator, or give it a new password; the password travels in the environment, not on a command line."""
    password = secrets.token_urlsafe(9)
    done = subprocess.run(
        services.manage("shell", "-c", MAKE_OPERATOR),
        env=site.supervisor.child_environment({PASSWORD_VARIABLE: password}),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise ProcessError(f"the operator could not be made:\n{done.stderr}")
    return password
