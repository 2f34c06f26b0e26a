"""Refunds count the calls that got no definite answer."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_payments', '0002_console'),
    ]

    operations = [
        migrations.AddField(
            model_name='refund',
            name='open_call_count',
            field=models.IntegerField(default=0, verbose_name='unanswered calls'),
        ),
    ]
