"""A shop's reference is searched without its source."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_orders', '0002_guards'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='order',
            index=models.Index(fields=['reference'], name='payonce_order_ref_search'),
        ),
    ]
