"""Optional: the HTML pages of runs, and the comparison of several.

page.py            report.html of a run; report.html.jinja, report.css
charts.py          the curves of metrics.jsonl
classification.py  confusion matrix, mistakes, reliability diagram and samples
predictions.py     a table of what is predicted for each example
examples.py        examples of the test set, for pages.py and the functions of training.report
pages.py           labels, masks, and values beside their targets
sections.py        what a function returns, as parts of the page
gallery.py         augmented images, and the first layer's filters (filters.py)
compare.py         what differs between runs, as a table
__main__.py        the same with all curves, as a page; comparison.html.jinja, comparison.css
render.py          fills in the templates; charts.html.jinja has what they share
"""
