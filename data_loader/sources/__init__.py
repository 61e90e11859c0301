"""Data sets in files of other kinds: each file is optional, and imported only where it is named."""
