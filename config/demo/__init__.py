"""The demo: the whole site is started, eight ways of paying wrongly are played live, and the bank's ledger judges.

python -m config.demo [--smoke] [--json PATH] [--only a,g]
"""
