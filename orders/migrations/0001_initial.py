"""The tables of this app."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Order',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.CharField(max_length=32, unique=True, verbose_name='number')),
                ('source', models.CharField(max_length=64, verbose_name='source')),
                ('reference', models.CharField(max_length=128, verbose_name='shop reference')),
                ('amount_minor', models.BigIntegerField(verbose_name='amount')),
                ('currency', models.CharField(max_length=3, verbose_name='currency')),
                ('subject', models.CharField(max_length=200, verbose_name='subject')),
                ('buyer_key', models.CharField(blank=True, default='', max_length=128, verbose_name='buyer key')),
                ('basket_key', models.CharField(blank=True, default='', max_length=128, verbose_name='basket key')),
                ('return_url', models.CharField(blank=True, default='', max_length=500, verbose_name='return address')),
                ('state', models.CharField(choices=[('OPEN', 'open'), ('CLOSING', 'closing'), ('CLOSED', 'closed'), ('PAID', 'paid'), ('REFUNDED', 'refunded')], default='OPEN', max_length=16, verbose_name='state')),
                ('keeper', models.CharField(blank=True, max_length=32, null=True, verbose_name='keeper')),
                ('refunded_minor', models.BigIntegerField(default=0, verbose_name='refunded')),
                ('created_at', models.DateTimeField(verbose_name='placed at')),
                ('expires_at', models.DateTimeField(blank=True, null=True, verbose_name='expires at')),
                ('paid_at', models.DateTimeField(blank=True, null=True, verbose_name='paid at')),
                ('closed_at', models.DateTimeField(blank=True, null=True, verbose_name='closed at')),
                ('close_reason', models.CharField(blank=True, default='', max_length=32, verbose_name='why closed')),
                ('next_expiry_at', models.DateTimeField(blank=True, null=True, verbose_name='next expiry check')),
                ('version', models.BigIntegerField(default=0, verbose_name='version')),
                ('event_hash', models.CharField(default='', max_length=64, verbose_name='newest hash')),
            ],
            options={
                'verbose_name': 'order',
                'verbose_name_plural': 'orders',
                'db_table': 'payonce_order',
                'indexes': [models.Index(condition=models.Q(('next_expiry_at__isnull', False)), fields=['next_expiry_at'], name='payonce_order_expiry'), models.Index(fields=['-created_at'], name='payonce_order_created'), models.Index(fields=['state', '-created_at'], name='payonce_order_by_state'), models.Index(condition=models.Q(models.Q(('buyer_key', ''), _negated=True), models.Q(('basket_key', ''), _negated=True)), fields=['buyer_key', 'basket_key', 'created_at'], name='payonce_order_basket')],
                'constraints': [models.UniqueConstraint(fields=('source', 'reference'), name='payonce_order_reference'), models.UniqueConstraint(fields=('keeper',), name='payonce_order_keeper'), models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0), ('amount_minor__lte', 1000000000000)), name='payonce_order_amount'), models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='payonce_order_currency'), models.CheckConstraint(condition=models.Q(('state__in', ['OPEN', 'CLOSING', 'CLOSED', 'PAID', 'REFUNDED'])), name='payonce_order_state'), models.CheckConstraint(condition=models.Q(models.Q(('keeper__isnull', False), ('state__in', ['PAID', 'REFUNDED'])), models.Q(('keeper__isnull', True), ('state__in', ['OPEN', 'CLOSING', 'CLOSED'])), _connector='OR'), name='payonce_order_paid_keeper'), models.CheckConstraint(condition=models.Q(('refunded_minor__gte', 0)), name='payonce_order_refunded')],
            },
        ),
        migrations.CreateModel(
            name='Event',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sequence', models.BigIntegerField(verbose_name='sequence')),
                ('kind', models.CharField(max_length=48, verbose_name='kind')),
                ('subject', models.CharField(blank=True, default='', max_length=40, verbose_name='subject')),
                ('state_from', models.CharField(blank=True, default='', max_length=20, verbose_name='from')),
                ('state_to', models.CharField(blank=True, default='', max_length=20, verbose_name='to')),
                ('actor', models.CharField(max_length=80, verbose_name='who')),
                ('at', models.DateTimeField(verbose_name='at')),
                ('body', models.TextField(verbose_name='body')),
                ('hash', models.CharField(max_length=64, verbose_name='hash')),
                ('order', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='events', to='payonce_orders.order', verbose_name='order')),
            ],
            options={
                'verbose_name': 'event',
                'verbose_name_plural': 'events',
                'db_table': 'payonce_event',
                'ordering': ['order_id', 'sequence'],
                'indexes': [models.Index(fields=['-at'], name='payonce_event_at')],
                'constraints': [models.UniqueConstraint(fields=('order', 'sequence'), name='payonce_event_sequence'), models.CheckConstraint(condition=models.Q(('sequence__gt', 0)), name='payonce_event_positive'), models.CheckConstraint(condition=models.Q(models.Q(('state_from', models.F('state_to')), _negated=True), ('state_to', ''), _connector='OR'), name='payonce_event_moves')],
            },
        ),
    ]
