"""The reference project: settings, URLs, servers and the supervisor. It is not part of the wheel."""
