"""The shop's own payments, with the same class names as payonce's."""

from django.db import models


class Stream(models.Model):
    """Something else entirely."""

    title = models.CharField(max_length=80)

    def __str__(self) -> str:
        return self.title
