"""Optional: the HTML pages of runs, and the comparison of several."""
