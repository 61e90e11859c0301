"""Networks, and the layers they consist of."""
