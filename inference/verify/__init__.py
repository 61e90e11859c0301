"""The equivalence check: each exported file against JAX, in its own runtime."""
