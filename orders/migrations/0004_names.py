"""A user name of Django fits wherever a person is named."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_orders', '0003_search'),
    ]

    operations = [
        migrations.AlterField(
            model_name='event',
            name='actor',
            field=models.CharField(max_length=160, verbose_name='who'),
        ),
    ]
