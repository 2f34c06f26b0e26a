"""The broken builds, as data: what is replaced, what that breaks, and who should catch it."""

from torture.broken import edges, evidence, locks, pay, refunds, settle, statements

ALL = (*locks.BUILDS, *pay.BUILDS, *settle.BUILDS, *evidence.BUILDS, *refunds.BUILDS, *edges.BUILDS, *statements.BUILDS)
