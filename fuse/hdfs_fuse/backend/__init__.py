"""Ways to reach the data: one Protocol (base.py), an adapter per client, and a resilient wrapper around them."""
