"""Trains the network of a config.

python train.py -c config.json                        a new run
python train.py -c config.json training.epochs=3      with another value
python train.py -c config.json --check                build everything, train nothing
python train.py -c config.json --profile              tell where the time goes
python train.py --resume latest                       go on with a run
"""

import argparse
import logging
import signal
import sys
import time
from pathlib import Path

import utils
from training import cluster
from training.config import read_config, write_config
from training.files import hold, let_go
from training.profiling import STOPWATCH, log_time, spent, traced

# The config is checked before JAX is imported, which takes a second: hence imports in functions.

LOG = logging.getLogger("main")


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        if options.check:
            config = read_config(options.config, options.overrides)
            from training.check import check

            return check(config, options.config)
        cluster.join(options)
        if options.resume:
            run = resume(options.resume, options.overrides)
        else:
            run = begin(options.config, options.overrides)
        code = train(*run, profile=options.profile)
        cluster.part()
        return code
    except utils.UserError as error:
        LOG.debug("error: %s", error)  # for train.log, if it is there already
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the first update; from then on it saves first
        return 128 + signal.SIGINT
    except Exception as error:
        if not cluster.joined():
            raise
        return cluster.failed(error)
    finally:
        let_go()


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", default="config.json", metavar="FILE")
    parser.add_argument("--resume", metavar="PATH", help="a checkpoint, a run folder, or 'latest'")
    parser.add_argument("--check", action="store_true", help="build and try everything, then stop")
    parser.add_argument("--profile", action="store_true", help="tell where the time goes")
    cluster.add_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def begin(path, overrides):
    """Makes a new run and its folder; returns what `train` takes."""
    config = read_config(path, overrides)
    from training.progress import Progress
    from training.start import fresh_state, write_run
    from training.tracking import with_wandb_id

    config = with_wandb_id(config)
    if not cluster.first():
        parts = prepare(config, path, None)
        return config, None, parts, fresh_state(parts, config), Progress()
    with utils.new_run_folder(config.training.save_dir, config.title, config.wandb.id) as folder:
        write_config(config, folder / "config.json")  # from here on, --resume can begin it anew
        parts = prepare(config, path, folder)
        state = fresh_state(parts, config)
        write_run(config, folder, parts, state)
    return config, folder, parts, state, Progress()


def resume(path, overrides):
    """Takes up a run in its own folder, with its own config and its own copy of the network."""
    from training.checkpoint import find, never_saved, read, set_aside_after

    path = utils.latest_run("saved") if path == "latest" else Path(path)
    path = Path(cluster.from_first(str(path if never_saved(path) else find(path))))
    checkpoint = None if never_saved(path) else path
    folder = checkpoint.parent if checkpoint else path
    utils.use_code_of(folder)
    config = read_config(folder / "config.json", overrides)
    arrays, meta = read(checkpoint, folders_whole=False) if checkpoint else (None, None)
    from training.progress import Progress
    from training.start import fresh_state, restored_state, write_run

    progress = Progress.from_meta(meta, checkpoint) if checkpoint else Progress()
    writes = folder if cluster.first() else None
    parts = prepare(config, folder / "config.json", writes)
    state = restored_state(parts, arrays, checkpoint) if checkpoint else fresh_state(parts, config)
    if not writes:
        return config, None, parts, state, progress
    write_run(config, folder, parts, state)
    LOG.info("Going on from %s", checkpoint or "the beginning: nothing had been saved yet")
    if aside := set_aside_after(folder, *progress.position()):
        LOG.warning("The checkpoints that were further in training are now in %s", aside)
    return config, folder, parts, state, progress


def prepare(config, source, folder):
    """Sets up logging and JAX, and builds the Parts of the run."""
    if folder:
        hold(folder)
    utils.set_up_logging(folder, quiet=not cluster.first())
    LOG.info("Start Training! [%s]", config.title)
    from training.audit import ingredients
    from training.build import build
    from training.devices import check_devices
    from training.start import use_compilation_cache

    if config.training.compilation_cache:
        use_compilation_cache()
    parts = build(config, source)
    check_devices(config, parts.loaders["train"].batch_size, source)
    if cluster.joined():
        cluster.agree(**ingredients(config, folder or utils.ROOT, parts))
    LOG.info("Dataloader, Model, Optimizer, Loss function loaded!")
    return parts


def train(config, folder, parts, state, progress, profile=False):
    """Trains for the epochs that are left, then reports; returns the exit code."""
    from training.checkpoint import Saver, file_name
    from training.evaluation import evaluate_all, predict
    from training.gallery import gather
    from training.guard import purity
    from training.interruption import Interruption
    from training.journal import Journal
    from training.optimizers import evaluation_params
    from training.recompilation import watched
    from training.report import write_report
    from training.start import count
    from training.tracking import Tracker

    LOG.info("The model has %d parameters", count(state.params, parts.copies))
    settings, loader = config.training, parts.loaders["train"]
    parts, settle = watched(parts)
    with (
        Interruption(cluster.joined()) as stop,
        Saver(folder, settings.keep, config.devices.orbax) as saver,
        Tracker(config, folder, progress.files) as tracker,
        traced(parts, folder, profile and folder) as parts,
        purity(),
    ):
        journal = Journal(progress, tracker, parts, settings.log_interval)

        def save(name, best=False):
            progress.files = tracker.sizes()
            saver.save(state, progress.meta(), name, best)

        while not progress.finished(settings):
            epoch, began = progress.epochs + 1, time.perf_counter()
            LOG.info("---- STARTING EPOCH %d ----", epoch)
            done = progress.batch
            STOPWATCH.restart()
            state = train_epoch(parts, state, epoch, progress, journal, folder, stop)
            speed = (progress.batch - done) * loader.batch_size / (time.perf_counter() - began)
            evaluated = evaluate_all(parts, evaluation_params(state), stop)
            if stop.due():
                save(file_name(*progress.position()))
                saver.wait()
                LOG.warning("Stopped; go on with: python train.py --resume %s", folder)
                return 128 + stop.signal

            best = progress.end_epoch(journal.end_epoch(evaluated), settings.monitor)
            seconds = time.perf_counter() - began
            tracker.time({"epoch": epoch, "seconds": seconds, "images_per_second": speed})
            due = progress.finished(settings) or epoch % settings.save_period == 0
            due = due or cluster.any_of(saver.failure)
            if due or best:
                save(file_name(epoch) if due else None, best)
            LOG.info("---- Epoch %d took %.2f seconds to complete! ----", epoch, seconds)
            if profile:
                log_time(epoch)
            settle()  # by now update and evaluate have met every shape there is

        saver.wait()
        params = evaluation_params(state)
        _, predictions = predict(parts, params)
        if not folder:
            return 0
        tracker.keep(folder / file_name(progress.epochs))
        gallery = gather(config, parts, params)
        report = write_report(folder, predictions=predictions, gallery=gallery)
    LOG.info("Finished! Look at %s", report)
    return 0


@spent("dispatch")
def train_epoch(parts, state, epoch, progress, journal, folder, stop):
    """Runs the updates of an epoch that are left, or until a signal; returns the state."""
    from training.journal import NotFinite, progress_bar
    from training.nonsense import explain

    loader = parts.loaders["train"]
    try:
        with progress_bar(loader, epoch, progress.batch) as advance:
            for batch, count in parts.calls(epoch, progress.batch):
                journal.make_room()
                if stop.due():
                    break
                state, measured = parts.update(state, batch)
                journal.add(measured, count)
                advance(count)
        journal.settle()
    except NotFinite as fault:
        explain(parts, state, epoch, fault.batch, folder)
    return state


if __name__ == "__main__":
    cluster.leave(main())
