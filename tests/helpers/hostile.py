"""Runs and files as somebody else may have made them."""

MARK = "open({path!r}, 'a').close()\n"  # code that leaves a file behind


def plant(path, mark):
    """Adds code to a file that leaves the file `mark` behind if it ever runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write("\n" + MARK.format(path=str(mark)))
