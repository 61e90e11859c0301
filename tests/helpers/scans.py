"""What the tests of several updates in a call share: the settings, the last line of a log."""

import json


def last_line(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


SEVERAL, RESIDENT = "training.steps_per_call=3", "data_loader.cache_on_device=true"
