"""Parts that networks and objectives are made of."""
