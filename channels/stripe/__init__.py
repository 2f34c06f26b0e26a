"""Stripe as a channel: `adapter` holds the operations, `forms` what is sent, `objects` and `events` what is read."""
