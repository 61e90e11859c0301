"""Numbers, images, texts and the last checkpoint in MLflow."""

import json
import os
import sys
import time
from pathlib import Path

from training.common.files import atomic_write_text
from training.common.records import flatten, read_lines, read_record, without_password
from training.tracking.media import file_name
from utils import optional_library

REQUIREMENT = "mlflow-skinny==3.17.2"
RUN = "mlflow.json"  # in the run folder: which run of MLflow it is
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"  # a server that is gone must not stop training
LONGEST_PARAMETER = 500  # characters


class MLflow:
    """The tracker that starts or continues a run of MLflow.

    What MLflow has of a run stays there, since it has no way to take figures back: a resumed run
    adds what metrics.jsonl has behind the last step in MLflow, and then what is new.

    Args:
        folder: the run folder.
        config: the run's Config.
        uri: "http://...", "sqlite:///mlflow.db" or a folder; None: the environment's
            MLFLOW_TRACKING_URI, else the folder mlruns beside the runs.
        experiment: its name; None: the config's title.
    """

    def __init__(self, folder, config, uri=None, experiment=None):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # plain files, as here all are
        os.environ.setdefault(*RETRIES)
        optional_library("mlflow", REQUIREMENT, "the tracker mlflow")
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self._folder, self._metric = Path(folder), Metric
        self._handled = sys.exception()  # not an error of this run
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{config.training.save_dir}/mlruns"
        uri = uri if ":" in uri else Path(uri).resolve().as_uri()
        self._client = MlflowClient(uri)
        self._run = self._continued(uri) or self._created(uri, experiment or config.title, config)
        history, known = self._client.get_metric_history, self._client.get_run(self._run).data
        self._last = {
            name: max(one.step for one in history(self._run, name)) for name in known.metrics
        }
        for line in read_lines(self._folder / "metrics.jsonl"):
            step = line.pop("step")
            self.scalars(step, {name: one for name, one in line.items() if one is not None})

    def _continued(self, uri):
        """The id of the run that the folder is of, if the store has it."""
        from mlflow.exceptions import MlflowException

        known = read_record(self._folder / RUN)
        try:
            if known.get("uri") == without_password(uri):
                self._client.set_terminated(known["run"], "RUNNING")
                return known["run"]
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        return None

    def _created(self, uri, name, config):
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=self._folder.name).info.run_id
        settings = flatten(config.model_dump(mode="json", exclude={"wandb"}))
        params = [Param(key, text[:LONGEST_PARAMETER]) for key, text in settings]
        for start in range(0, len(params), 100):  # as many as one request takes
            self._client.log_batch(run, params=params[start : start + 100])
        record = {"uri": without_password(uri), "run": run}
        atomic_write_text(self._folder / RUN, json.dumps(record) + "\n")
        return run

    def scalars(self, step, values):
        """Logs the values, except those that MLflow has of this step or a later one."""
        now = round(1000 * time.time())
        new = {name: one for name, one in values.items() if step > self._last.get(name, -1)}
        metrics = [self._metric(name, float(one), now, step) for name, one in new.items()]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)
        self._last |= dict.fromkeys(new, step)

    def image(self, step, name, array):
        """Logs a uint8 (height, width, channels) image as images/<name>/<step>.png."""
        self._client.log_image(self._run, array, f"images/{file_name(name)}/{step:09d}.png")

    def text(self, step, name, text):
        """Logs a text as texts/<name>/<step>.txt."""
        self._client.log_text(self._run, text, f"texts/{file_name(name)}/{step:09d}.txt")

    def artifact(self, path):
        """Logs the finished run's checkpoint."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self._run, str(path), "checkpoint")

    def close(self):
        """Ends the run, as failed if an error ended it."""
        failed = sys.exception() not in (None, self._handled)
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
