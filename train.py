"""Trains the network of a config.

python train.py -c config.json                        a new run
python train.py -c config.json training.epochs=3      with another value
python train.py -c config.json --check                build everything, train nothing
python train.py --resume latest                       continue a run
"""

import argparse
import logging

import utils
from training.checkpoint.naming import find_run
from training.common import kept_code, locks
from training.config import as_overrides, read_config
from training.distributed import processes

LOG = logging.getLogger("main")


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        chosen = {one: vars(options)[one] for one in ("overrides", "resume", *kept_code.OPTIONS)}
        if options.check:
            check = utils.optional_module("training.debug.dry_run", needed_by="--check").check
            return check(options.config, **chosen)
        processes.initialize(options)
        run = fit(options.config, profile=options.profile, **chosen)
        processes.shutdown()
        return 128 + run.stopped if run.stopped else 0
    except utils.UserError as error:
        LOG.debug("error: %s", error)  # for train.log, if it is there already
        utils.print_error(error)
        return 1
    except KeyboardInterrupt:  # before the first update; from then on it saves first
        return 130
    except Exception as error:
        if not processes.is_distributed():
            raise
        return processes.report_failure(error)


def parse_arguments(argv):
    """Returns the command line's options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("-c", "--config", default="config.json", metavar="FILE")
    parser.add_argument("--resume", metavar="PATH", help="a checkpoint, a run folder, or 'latest'")
    parser.add_argument("--check", action="store_true", help="build and try everything, then stop")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    kept_code.add_options(parser)
    processes.add_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def fit(config="config.json", *, overrides=(), resume=None, profile=False,
        trust=False, own_code=False, allow=(), callbacks=(), **values):  # fmt: skip
    """Trains the network of a config, or continues a run; returns the Run.

        run = fit("config.json", training__epochs=3)
        print(run.metrics["test_accuracy"], run.folder)

    Args:
        config: the config's file, or its content as a dict.
        overrides: "key.path=value" strings, as on the command line.
        resume: a checkpoint, a run folder, or "latest"; then the config is the run's own.
        profile: trace a few updates, and log where the time of each epoch goes.
        trust, own_code, allow: whose code may run, see `--help`.
        callbacks: functions of the Run besides the config's, each alone or as (f, "500 steps").
        values: overrides as keywords, with __ for the dots.
    """
    try:
        folder, checkpoint = find_run(resume, to_train=True) if resume else (None, None)
        source = kept_code.use_code_of(folder, trust, own_code) or config
        config = read_config(source, [*overrides, *as_overrides(values)], allow)
        if profile:
            utils.optional_module("training.debug.profiling", needed_by="--profile")
        # The config is checked before JAX is imported, which takes a second.
        from training.checkpoint.saver import Saver
        from training.distributed.preemption import StopSignal
        from training.engine.callbacks import bind_callbacks
        from training.engine.loop import instruments, train_epoch
        from training.engine.out_of_memory import explain_out_of_memory
        from training.engine.run import new_run, resumed_run
        from training.engine.schedule import Schedule
        from training.tracking.metric_logger import MetricLogger
        from training.tracking.trackers import Trackers

        called = bind_callbacks(config, source, callbacks)
        run = resumed_run(config, folder, checkpoint) if folder else new_run(config, source)
        settings, progress = run.config.training, run.progress
        with (
            StopSignal(processes.is_distributed()) as stop,
            Saver(run.folder, settings.keep, run.config.devices.orbax) as saver,
            Trackers(run.config, run.folder, progress.files, progress.steps) as trackers,
            instruments(run, profile) as end_epoch,
            explain_out_of_memory(config),
        ):
            logger = MetricLogger(progress, trackers, run.experiment, settings.log_every)
            schedule = Schedule(run, called, logger, saver, trackers, stop)
            while not progress.finished(settings):
                logger.start_epoch()
                with run.saved_on_error(saver, trackers, logger):
                    if train_epoch(run, logger, stop, schedule):  # and within it: evaluates, saves
                        schedule.handle(epoch_over=True)
                    if stop.due() and not progress.finished(settings):
                        return run.save_and_stop(saver, trackers, stop.signal, logger.sizes)
                end_epoch(progress.epochs)
            saver.wait()
            run.finish(trackers)
        return run
    finally:
        locks.unlock()


if __name__ == "__main__":
    processes.exit_process(main())
