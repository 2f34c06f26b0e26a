"""The reference project as an app, so that every process that sets up Django also knows the Celery application."""

from django.apps import AppConfig


class ReferenceProjectConfig(AppConfig):
    """The project around payonce; it has no models."""

    name = "config"
    label = "payonce_reference"

    def ready(self) -> None:
        """Make our Celery application the one that tasks are sent through."""
        import config.celery  # noqa: F401
