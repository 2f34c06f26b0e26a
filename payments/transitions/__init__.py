"""Every arrow of streams, refunds and discrepancies. The caller holds the order's lock; no I/O and no clock inside."""
