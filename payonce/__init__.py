"""payonce makes sure that an order is paid once.

The three parts live in `payonce.orders`, `payonce.payments` and `payonce.channels`. In a checkout those are links to
the folders at the top level; in the wheel they are plain folders. They are always imported through this package.
"""

__version__ = "0.1.0"
