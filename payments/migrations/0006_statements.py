"""Channels' statements: days and lines, and the index by which money that no statement names is found."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payonce_orders', '0004_names'),
        ('payonce_payments', '0005_last_sent'),
    ]

    operations = [
        migrations.CreateModel(
            name='StatementDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', models.CharField(max_length=32, verbose_name='channel account')),
                ('day', models.DateField(verbose_name='day')),
                ('fetched_at', models.DateTimeField(blank=True, null=True, verbose_name='fetched at')),
                ('compared_at', models.DateTimeField(blank=True, null=True, verbose_name='compared at')),
                ('line_count', models.IntegerField(default=0, verbose_name='lines')),
                ('difference_count', models.IntegerField(default=0, verbose_name='differences')),
                ('foreign_count', models.IntegerField(default=0, verbose_name='lines about other numbers')),
                ('next_try_at', models.DateTimeField(blank=True, null=True, verbose_name='next try')),
                ('try_count', models.IntegerField(default=0, verbose_name='tries')),
                ('last_answer', models.CharField(blank=True, default='', max_length=200, verbose_name='last answer')),
                ('wanted_at', models.DateTimeField(verbose_name='wanted since')),
            ],
            options={
                'verbose_name': 'statement',
                'verbose_name_plural': 'statements',
                'db_table': 'payonce_statement_day',
            },
        ),
        migrations.CreateModel(
            name='StatementLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', models.CharField(max_length=32, verbose_name='channel account')),
                ('kind', models.CharField(max_length=8, verbose_name='kind')),
                ('number', models.CharField(blank=True, default='', max_length=128, verbose_name='number')),
                ('channel_reference', models.CharField(blank=True, default='', max_length=128, verbose_name='channel reference')),
                ('payment_number', models.CharField(blank=True, default='', max_length=128, verbose_name='number of the payment')),
                ('payment_reference', models.CharField(blank=True, default='', max_length=128, verbose_name='reference of the payment')),
                ('amount_minor', models.BigIntegerField(verbose_name='amount')),
                ('currency', models.CharField(max_length=3, verbose_name='currency')),
                ('at', models.DateTimeField(blank=True, null=True, verbose_name='at (channel)')),
                ('state', models.CharField(blank=True, default='', max_length=64, verbose_name='state')),
                ('came_to', models.CharField(default='DONE', max_length=12, verbose_name='came to')),
            ],
            options={
                'verbose_name': 'statement line',
                'verbose_name_plural': 'statement lines',
                'db_table': 'payonce_statement_line',
            },
        ),
        migrations.AddIndex(
            model_name='stream',
            index=models.Index(condition=models.Q(('succeeded_at__isnull', False)), fields=['account', 'succeeded_at'], name='payonce_stream_known'),
        ),
        migrations.AddIndex(
            model_name='statementday',
            index=models.Index(condition=models.Q(('next_try_at__isnull', False)), fields=['next_try_at'], name='payonce_statement_due'),
        ),
        migrations.AddIndex(
            model_name='statementday',
            index=models.Index(fields=['-day'], name='payonce_statement_by_day'),
        ),
        migrations.AddConstraint(
            model_name='statementday',
            constraint=models.UniqueConstraint(fields=('account', 'day'), name='payonce_statement_once'),
        ),
        migrations.AddConstraint(
            model_name='statementday',
            constraint=models.CheckConstraint(condition=models.Q(('fetched_at__isnull', False), ('compared_at__isnull', True), _connector='OR'), name='payonce_statement_order'),
        ),
        migrations.AddField(
            model_name='statementline',
            name='statement',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='lines', to='payonce_payments.statementday', verbose_name='statement'),
        ),
        migrations.AddIndex(
            model_name='statementline',
            index=models.Index(fields=['account', 'number'], name='payonce_line_number'),
        ),
        migrations.AddIndex(
            model_name='statementline',
            index=models.Index(condition=models.Q(('channel_reference', ''), _negated=True), fields=['account', 'channel_reference'], name='payonce_line_ref'),
        ),
        migrations.AddIndex(
            model_name='statementline',
            index=models.Index(condition=models.Q(('payment_number', ''), _negated=True), fields=['account', 'payment_number'], name='payonce_line_payment'),
        ),
        migrations.AddIndex(
            model_name='statementline',
            index=models.Index(condition=models.Q(('payment_reference', ''), _negated=True), fields=['account', 'payment_reference'], name='payonce_line_pay_ref'),
        ),
        migrations.AddConstraint(
            model_name='statementline',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ('payment', 'refund'))), name='payonce_line_kind'),
        ),
    ]
