"""The console's queues and permissions, and the index of the list of cases."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_orders', '0003_search'),
        ('payonce_payments', '0001_initial'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='channelstate',
            options={'verbose_name': 'channel', 'verbose_name_plural': 'channels'},
        ),
        migrations.CreateModel(
            name='NeedsDecision',
            fields=[
            ],
            options={
                'verbose_name': 'case that needs a decision',
                'verbose_name_plural': 'queue: needs decision',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.discrepancy',),
        ),
        migrations.CreateModel(
            name='Overview',
            fields=[
            ],
            options={
                'verbose_name': 'overview',
                'verbose_name_plural': 'overview',
                'permissions': [('view_raw', 'Can read raw notifications (recorded)'), ('ask', 'Can ask a channel now'), ('close', 'Can close streams and orders'), ('decide', 'Can decide cases, and resend or skip messages'), ('refund', 'Can ask for a refund'), ('approve', 'Can approve or decline a refund'), ('export', 'Can export lists'), ('manage', 'Can process notifications again')],
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.channelstate',),
        ),
        migrations.CreateModel(
            name='RefundsToApprove',
            fields=[
            ],
            options={
                'verbose_name': 'refund that waits for approval',
                'verbose_name_plural': 'queue: refunds waiting approval',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.refund',),
        ),
        migrations.CreateModel(
            name='ShopNotTold',
            fields=[
            ],
            options={
                'verbose_name': 'shop not told',
                'verbose_name_plural': 'queue: shop not told',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.discrepancy',),
        ),
        migrations.CreateModel(
            name='StuckRefunds',
            fields=[
            ],
            options={
                'verbose_name': 'failed or stuck refund',
                'verbose_name_plural': 'queue: refunds failed or stuck',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.refund',),
        ),
        migrations.CreateModel(
            name='SurplusMoney',
            fields=[
            ],
            options={
                'verbose_name': 'duplicate or late payment',
                'verbose_name_plural': 'queue: duplicates and late payments',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.discrepancy',),
        ),
        migrations.CreateModel(
            name='UnmatchedMoney',
            fields=[
            ],
            options={
                'verbose_name': 'unmatched money',
                'verbose_name_plural': 'queue: unmatched money',
                'proxy': True,
                'default_permissions': ('view',),
                'indexes': [],
                'constraints': [],
            },
            bases=('payonce_payments.discrepancy',),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(fields=['-opened_at'], name='payonce_case_opened'),
        ),
    ]
