"""A run of stories or storms outside pytest has a database of its own."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def own_database() -> Iterator[None]:
    """Make this process a test database, and remove it at the end."""
    from django.db import connection

    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
