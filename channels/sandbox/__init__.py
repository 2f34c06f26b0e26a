"""The sandbox channel: an adapter like any other, and the bank behind it, which runs as a process of its own.

`adapter` is the only part that the shop's processes use. The rest is the bank: `ledger` holds the money and its rules,
`faults` what is to go wrong, `outbox` the notifications; none of them knows the JSON dialect, which `dialect` adds.
`control` is the client that tests, the demo and torture steer it with; `testing` starts it.
"""
