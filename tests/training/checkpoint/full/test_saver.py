"""A process that saves is killed."""

from tests.helpers.python_process import python

KILLS = """if True:
    import os, random, signal, sys, time
    from pathlib import Path
    import jax, numpy as np
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import best, file_name, numbered
    from training.checkpoint.reading import read

    KILLS, folder, random = 40, Path(sys.argv[1]), random.Random(0)

    def save_for_ever(pipe):
        first = max((read(path)[1]["epoch"] for path in numbered(folder)), default=0) + 1
        with Saver(folder, keep=2) as saver:
            assert not list(folder.glob("*.tmp"))
            for epoch in range(first, 10**9):
                state = {"a": np.full(200_000, epoch), "b": np.full(200_000, epoch)}
                saver.save(state, {"epoch": epoch}, file_name(epoch), best=epoch % 2 == 0)
                saver.wait()
                os.write(pipe, b"%d\\n" % epoch)

    half_written = best_acknowledged = 0
    for kill in range(KILLS):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(writer)
        os.close(writer)
        with open(reader) as acknowledgements:
            lines = [acknowledgements.readline()]
            time.sleep(random.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines += [line for line in acknowledgements if line.endswith("\\n")]
            acknowledged = int(lines[-1])
            evens = [int(line) for line in lines if int(line) % 2 == 0]
            best_acknowledged = evens[-1] if evens else best_acknowledged
        half_written += len(list(folder.glob("*.tmp")))
        epochs = []
        for path in [*numbered(folder), best(folder)]:
            if path is not None:
                arrays, meta = read(path)
                epochs.append(meta["epoch"])
                assert all(np.all(array == epochs[-1]) for array in arrays.values())
                assert path.name in (file_name(epochs[-1]), "checkpoint-best.params")
        assert acknowledged in epochs, (acknowledged, epochs)
        if best_acknowledged:
            assert read(best(folder))[1]["epoch"] >= best_acknowledged
        assert len(epochs) <= 4
    Saver(folder).close()
    print(kill + 1, half_written > 0, acknowledged >= KILLS, len(list(folder.glob("*.tmp"))))
"""


def test_kill_minus_nine_breaks_no_checkpoint_and_loses_none_that_was_acknowledged(tmp_path):
    assert python(KILLS, tmp_path) == "40 True True 0\n"
