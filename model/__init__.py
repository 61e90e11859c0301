"""Networks, and the layers they are built from."""
