"""Networks of well-known papers, with their own names, so that trained weights fit them."""
