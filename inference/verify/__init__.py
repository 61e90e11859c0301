"""The equivalence check: each file against JAX, in its own runtime."""
