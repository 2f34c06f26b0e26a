"""The cashier: the page on which a buyer pays one order. Rendered on the server; works without JavaScript."""
