"""The trackers that a config can name in a single word; each imports its library when created."""


def jsonl(folder, config, size=0):
    """metrics.jsonl in the run folder; every run has it, whether it is named or not.

    Args:
        folder: the run folder.
        config: the run's Config.
        size: bytes of the file that are kept.
    """
    from training.tracking.jsonl import JsonLines

    return JsonLines(folder, config, size)


def tensorboard(folder, config, step=0):
    """TensorBoard's event files in the run folder.

    Args:
        folder: the run folder.
        config: the run's Config.
        step: the number of batches that a resumed run has trained.
    """
    from training.tracking.tensorboard import TensorBoard

    return TensorBoard(folder, config, step)


def wandb(folder, config, **settings):
    """Weights & Biases, with the settings of the config's section wandb.

    Args:
        folder: the run folder.
        config: the run's Config.
        settings: further arguments of `wandb.init` ("tags", "notes").
    """
    from training.tracking.wandb import WeightsAndBiases

    return WeightsAndBiases(folder, config, **settings)


def mlflow(folder, config, uri=None, experiment=None):
    """A run of MLflow.

    Args:
        folder: the run folder.
        config: the run's Config.
        uri: "http://...", "sqlite:///mlflow.db" or a folder; None: the environment's
            MLFLOW_TRACKING_URI, else the folder mlruns beside the runs.
        experiment: its name; None: the config's title.
    """
    from training.tracking.mlflow import MLflow

    return MLflow(folder, config, uri, experiment)
