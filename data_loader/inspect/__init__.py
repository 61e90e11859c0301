"""Looks at all data of a config before anything is trained: `python -m data_loader.inspect`.

Optional: nothing else needs this folder. reading.py reads every example, findings.py judges what
was read, duplicates.py finds what is there twice, page.py writes the HTML page.
"""
