"""Refunds remember when they were last sent."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_payments', '0004_names'),
    ]

    operations = [
        migrations.AddField(
            model_name='refund',
            name='last_sent_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='last sent at'),
        ),
    ]
