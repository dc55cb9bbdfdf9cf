# The tables of reminders, deliveries, their attempts, notifications and preferences.

import django.contrib.postgres.fields
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('notes', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Reminder',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('sending', 'Sending'), ('sent', 'Sent'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='pending', max_length=16)),
                ('scheduled_at', models.DateTimeField(help_text='The next time, or the last time after its end.')),
                ('start_date', models.DateField()),
                ('start_time', models.TimeField()),
                ('time_zone', models.CharField(max_length=64)),
                ('rrule', models.CharField(blank=True, default='', max_length=500, verbose_name='rule')),
                ('channels', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(choices=[('email', 'e-mail'), ('webhook', 'webhook'), ('in_app', 'in-app')], max_length=16), size=None)),
                ('message', models.TextField(blank=True, default='', max_length=2000)),
                ('snooze_link', models.CharField(blank=True, default='', help_text='The mail link that last snoozed this reminder. It works once.', max_length=50)),
                ('error', models.TextField(blank=True, default='', help_text='Why the rule was given up.')),
                ('request_id', models.CharField(blank=True, default='', help_text='The request that created it, for the logs.', max_length=36)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('note', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='reminders', to='notes.note')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='reminders', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'reminders',
                'ordering': ('scheduled_at', 'id'),
                'indexes': [
                    models.Index(condition=models.Q(('status', 'pending')), fields=['scheduled_at'], name='reminders_due'),
                    models.Index(fields=['user', 'scheduled_at', 'id'], name='reminders_of_user'),
                ],
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('channels__len__gt', 0)), name='reminder_has_a_channel'),
                ],
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('occurrence_at', models.DateTimeField(help_text='The time this delivery reminds of.')),
                ('channel', models.CharField(choices=[('email', 'e-mail'), ('webhook', 'webhook'), ('in_app', 'in-app')], max_length=16)),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('sending', 'Sending'), ('sent', 'Sent'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='pending', max_length=16)),
                ('is_late', models.BooleanField(default=False, help_text='The sweep found it long after its time, as after an outage.')),
                ('is_superseded', models.BooleanField(default=False, help_text='The reminder was cancelled or rescheduled before this delivery ended.')),
                ('digest', models.UUIDField(help_text='Deliveries with the same value are sent in one mail.', null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('claim_seq', models.PositiveIntegerField(default=0)),
                ('lease_expires_at', models.DateTimeField(null=True)),
                ('next_attempt_at', models.DateTimeField()),
                ('dispatched_at', models.DateTimeField(help_text='When the latest message about it was sent.', null=True)),
                ('error', models.TextField(blank=True, default='', help_text='Why the latest attempt failed.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('sent_at', models.DateTimeField(null=True)),
                ('reminder', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='reminders.reminder')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'db_table': 'reminder_deliveries',
                'ordering': ('-occurrence_at', 'channel'),
                'indexes': [
                    models.Index(condition=models.Q(('status', 'pending')), fields=['next_attempt_at'], name='deliveries_waiting'),
                    models.Index(condition=models.Q(('status', 'sending')), fields=['lease_expires_at'], name='deliveries_in_work'),
                    models.Index(condition=models.Q(('digest__isnull', False), ('status', 'pending')), fields=['digest'], name='deliveries_of_digest'),
                ],
                'constraints': [
                    models.UniqueConstraint(fields=('reminder', 'occurrence_at', 'channel'), name='one_delivery_per_occurrence_and_channel'),
                ],
            },
        ),
        migrations.CreateModel(
            name='DeliveryAttempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveSmallIntegerField()),
                ('outcome', models.CharField(choices=[('sent', 'Sent'), ('postponed', 'failed for now'), ('failed', 'failed for good'), ('lost', 'its process died')], max_length=16)),
                ('reason', models.TextField(blank=True, default='')),
                ('ended_at', models.DateTimeField(auto_now_add=True)),
                ('delivery', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='log', to='reminders.delivery')),
            ],
            options={
                'db_table': 'reminder_delivery_attempts',
                'ordering': ('delivery', 'number'),
                'constraints': [models.UniqueConstraint(fields=('delivery', 'number'), name='one_row_per_attempt')],
            },
        ),
        migrations.CreateModel(
            name='Notification',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('title', models.CharField(max_length=300)),
                ('message', models.TextField(blank=True, default='')),
                ('occurrence_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('read_at', models.DateTimeField(null=True)),
                ('delivery', models.OneToOneField(null=True, on_delete=django.db.models.deletion.SET_NULL, to='reminders.delivery')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='notifications', to=settings.AUTH_USER_MODEL)),
                ('reminder', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, to='reminders.reminder')),
            ],
            options={
                'db_table': 'notifications',
                'ordering': ('-created_at', '-id'),
                'indexes': [
                    models.Index(fields=['user', '-created_at', '-id'], name='notifications_newest'),
                ],
            },
        ),
        migrations.CreateModel(
            name='ReminderPreferences',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('quiet_from', models.TimeField(blank=True, null=True)),
                ('quiet_until', models.TimeField(blank=True, null=True)),
                ('digest_at', models.TimeField(blank=True, null=True)),
                ('webhook_url', models.CharField(blank=True, default='', max_length=2000)),
                ('webhook_secret', models.CharField(max_length=100)),
                ('feed_secret', models.CharField(max_length=64, unique=True)),
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='reminder_preferences', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'reminder preferences',
                'db_table': 'reminder_preferences',
            },
        ),
    ]
