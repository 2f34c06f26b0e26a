"""A user name of Django fits wherever a person is named."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_payments', '0003_open_calls'),
    ]

    operations = [
        migrations.AlterField(
            model_name='discrepancy',
            name='decided_by',
            field=models.CharField(blank=True, default='', max_length=150, verbose_name='decided by'),
        ),
        migrations.AlterField(
            model_name='refund',
            name='approved_by',
            field=models.CharField(blank=True, default='', max_length=150, verbose_name='decided by'),
        ),
        migrations.AlterField(
            model_name='refund',
            name='requested_by',
            field=models.CharField(max_length=150, verbose_name='requested by'),
        ),
    ]
