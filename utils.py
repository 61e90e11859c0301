"""Small functions that everything uses: resolving names, run folders, logging."""

import ast
import contextlib
import difflib
import functools
import gc
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import logging.config
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
USERS_FILES = (  # in the folders of the template, beside model/model.py
    "data_loader.dataloader", "data_loader.samplers", "data_loader.transforms",
    "training.callbacks", "training.loss", "training.metrics", "training.optimizers",
)  # fmt: skip
WRITING_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
COMMANDS = ("new_project", "test", "train", "utils")  # modules that are not for a config to name
CALLED_BY_ENGINE = {"training.optimizers": ("gradients", "update")}  # not for a config to name


class UserError(Exception):
    """Something the user can fix: the message says where, what was got and expected, and how."""


def nearest(name: object, known: Iterable[object]) -> str:
    """Returns "; did you mean 'x'?" for the name most like it, or "" if none is alike."""
    match = difflib.get_close_matches(str(name), [str(one) for one in known], n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def printable(name: object) -> str:
    """Returns a file's name as text that every terminal, page and file can show.

    Bytes that are no UTF-8 become \\xff, control characters \\n or \\x1b, and those that turn the
    direction of writing \\u202e.
    """
    return "".join(map(_printable_character, str(name)))


def _printable_character(one):
    code = ord(one)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    hidden = unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one in WRITING_DIRECTION
    return one.encode("unicode_escape").decode() if hidden else one


def csv_text(text: str) -> str:
    """Returns a text for a cell of a CSV file, which no spreadsheet takes for a formula.

    Bytes that are no UTF-8 stay, for a file that is written with "surrogateescape".
    """
    shown = "".join(one if "\udc80" <= one <= "\udcff" else printable(one) for one in text)
    try:
        float(shown)
    except ValueError:
        return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
    return shown


def command(main: Callable[[Any], int | None]) -> Callable[..., int]:
    """Decorates the main function of a command, so that it shows a UserError as one line.

    Args:
        main: takes the words of the command line, or None; returns the exit code, or None for 0.
    """

    @functools.wraps(main)
    def decorated(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except UserError as error:
            print_error(error)
            return 1

    return decorated


def print_error(error: UserError) -> None:
    """Prints an error, whatever the names in it: none can write on another line or elsewhere."""
    text = "\n".join(map(printable, str(error).split("\n")))
    print(styled("error:", "red", sys.stderr), text, file=sys.stderr)


# Names -----------------------------------------------------------------------------------------


def check_name(
    name: str, kind: str, homes: Sequence[str], where: str, imports: Iterable[str] = ()
) -> list[str]:
    """Returns a list of what is wrong with a name, without importing what it names.

    Args:
        name: a bare name, or "package.module:function".
        kind: what the name should be, for the message ("model").
        homes: modules a bare name is looked up in.
        where: where it is ("config.json: model.name").
        imports: packages whose functions may be named, besides this project's and optax.
    """
    if ":" in name:
        module, _, function = name.partition(":")
        if not (module and function and all(part.isidentifier() for part in module.split("."))):
            return [f"{where}: {name!r} is not of the form 'package.module:function'"]
        return _check_module(module, name, where, {*homes, "optax", *imports})
    known = [one for home in homes for one in public_names(home)]
    if name in known:
        return []
    homes = [home.partition(":")[0] for home in homes if public_names(home)]  # that are there
    files = " or ".join(f"{home.replace('.', '/')}.py" if "." in home else home for home in homes)
    return [f"{where}: no {kind} {name!r} in {files}{nearest(name, known)}"]


def _check_module(module, name, where, allowed):
    """What is wrong with a module in a name: its functions are not for a config to call."""
    parents = itertools.accumulate(module.split("."), "{}.{}".format)
    package = module.partition(".")[0]
    if _is_the_users(module) or allowed & set(parents) or _is_missing(package):
        return []
    if _is_in_project(package):
        return [f"{where}: {name!r} is a part of the template, not a function to be named here"]
    return [
        f"{where}: {name!r} is not of this project. If this config may run functions of {package}, "
        f'add "imports": ["{package}"] to it, or --allow {package}'
    ]


def _is_missing(package):
    """Whether there is no such package; `resolve` says so."""
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # "__main__"
        return False


def public_names(home: str) -> list[str]:
    """Returns the names that a config can give for what a module defines, read from its source.

    Those are its functions and classes, and what it imports from other files of the user's; not
    what it takes from libraries or from the template, nor what the engine calls by itself.

    Args:
        home: the module; or "package:part,part", a library's package and those of its modules
            that define such things ("optax:losses").
    """
    module, _, parts = home.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the folder it is in has been deleted
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    defined, taken = [], {}  # {name: the module that it is taken from}
    for node in _parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            package = f"{module.rpartition('.')[0]}." if node.level else ""
            origin = f"{package}{node.module or ''}".strip(".")
            taken |= {alias.asname or alias.name: origin for alias in node.names}
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            defined += [name for name in names if not name.isupper()]
            taken |= dict.fromkeys(names, ast.unparse(node.value).partition(".")[0])
    if parts:
        wanted = parts.split(",")
        names = [name for name, origin in taken.items() if origin.rpartition(".")[2] in wanted]
        return [name for name in names if name.islower() and not name.startswith("_")]
    names = defined + [name for name, origin in taken.items() if _is_the_users(origin)]
    hidden = CALLED_BY_ENGINE.get(module, ())
    return [name for name in names if not name.startswith("_") and name not in hidden]


@functools.lru_cache(maxsize=64)
def _parse(source):
    """Returns the syntax tree of Python source.

    Callbacks of the garbage collector, as JAX has one, make CPython 3.11 fail here at times
    (https://github.com/python/cpython/issues/106905), so there is no collection meanwhile.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if collects:
            gc.enable()


def _is_the_users(module):
    """Whether a module is a file of this project, and not the template's machinery.

    Runs and data are in the project's folder, but not of the project. A run's own code is if it
    is used: see training/common/kept_code.py.
    """
    top = module.partition(".")[0]
    if top in ("data_loader", "inference", "training", *COMMANDS) or (
        f"{module}.".startswith("model.modules.")
    ):
        return module in USERS_FILES
    return top not in ("data", "saved") and _is_in_project(module)


def _is_in_project(module):
    if any(module in getattr(finder, "kept", ()) for finder in sys.meta_path):
        return True
    parts = module.split(".")
    path = ROOT.joinpath(*parts)
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return all(map(str.isidentifier, parts)) and any(file.is_file() for file in files)


def resolve(name: str, homes: Sequence[str], where: str = "config.json") -> Callable:
    """Imports and returns what a name stands for; see `check_name`."""
    if ":" in name:
        home, _, attribute = name.partition(":")
    else:
        attribute, home = name, next((one for one in homes if name in public_names(one)), homes[0])
        home = home.partition(":")[0]
    try:
        found = module = importlib.import_module(home)
        for part in attribute.split("."):
            found = getattr(found, part)
            if ":" in name:
                _refuse_detour(found, part, module, f"{where}: {name!r}")
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: {name!r}: no module {error.name!r}; is it installed?") from None
    except AttributeError:
        known = nearest(attribute, dir(importlib.import_module(home)))
        raise UserError(f"{where}: no {attribute!r} in {home}{known}") from None
    if not callable(found):
        raise UserError(f"{where}: {name!r} is a {type(found).__name__}, expected a function")
    return found


def _refuse_detour(found, part, module, where):
    """Refuses what only leads through a module, such as "my_network:os.system"."""
    origin = found.__name__ if inspect.ismodule(found) else getattr(found, "__module__", None)
    top = str(origin or module.__name__).partition(".")[0]
    foreign = top != module.__name__.partition(".")[0] and (
        inspect.ismodule(found) or top in sys.stdlib_module_names
    )
    if part.startswith("__") or (foreign and part not in public_names(module.__name__)):
        raise UserError(f"{where}: leads to {top}; name what {module.__name__} defines itself")


def signature_of(function: Callable) -> inspect.Signature | None:
    """Returns a function's signature; some built-in functions have none."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def check_arguments(
    function: Callable, args: dict | list, where: str, given: Iterable[str] = ()
) -> None:
    """Binds arguments to a function's signature, without calling it.

    Args:
        function: what is to be called.
        args: its arguments from the config, a dict or a list.
        where: where they are ("config.json: model.args").
        given: names of the arguments the framework fills in itself.

    Raises:
        UserError: which argument does not fit, and the signature.
    """
    signature = signature_of(function)
    if signature is None:
        return
    name = getattr(function, "__name__", str(function))
    parameters = signature.parameters.values()
    if isinstance(args, dict) and not any(one.kind is one.VAR_KEYWORD for one in parameters):
        takes = [one.name for one in parameters if one.kind is not one.VAR_POSITIONAL]
        for argument in args:
            if argument not in takes or argument in given:
                free = [one for one in takes if one not in given]
                hint = nearest(argument, free) or f"; it takes {', '.join(free) or 'none'}"
                raise UserError(f"{where}: {name} takes no argument {argument!r}{hint}")
    try:
        if isinstance(args, dict):
            required = [one for one in given if one in signature.parameters]
            signature.bind(**args, **dict.fromkeys(required))
        else:
            signature.bind(*args)
    except TypeError as error:
        raise UserError(f"{where}: {name}{signature}: {error}") from None
    _check_numbers(signature, args, f"{where}: {name}")


def _check_numbers(signature, args, where):
    """Refuses a text where the default is a number and no annotation speaks of texts."""
    for name, value in args.items() if isinstance(args, dict) else ():
        parameter = signature.parameters.get(name)
        if parameter is None or not isinstance(value, str) or "str" in str(parameter.annotation):
            continue
        default = parameter.default
        if isinstance(default, int | float):
            kind = "true or false" if isinstance(default, bool) else f"a number such as {default}"
            raise UserError(
                f"{where}: {name} is {value!r}; expected {kind}, without quotes in a config"
            )


def call(function: Callable, args: dict | list, where: str) -> Any:
    """Calls a function with arguments from the config, which must fit its signature."""
    check_arguments(function, args, where)
    try:
        return function(**args) if isinstance(args, dict) else function(*args)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        words = str(error) if isinstance(error, TypeError | ValueError) else repr(error)
        raise UserError(f"{where}: {function.__name__} refused its arguments: {words}") from error


def optional_module(name: str, needed_by: str | None = None) -> Any:
    """Imports and returns a module of a folder that a project may have deleted, else None.

    Args:
        name: the module ("training.report.page").
        needed_by: the option or key that cannot do without it; then its absence is an error.

    Raises:
        UserError: the folder is not there, and something needs it.
    """
    package = name.rpartition(".")[0]
    folder = ROOT / package.replace(".", "/")
    if (folder / "__init__.py").exists():
        return importlib.import_module(name)
    if needed_by is None:
        return None
    raise UserError(
        f"{needed_by}: needs {folder.relative_to(ROOT)}/, which is not part of this project; copy "
        "that folder from the template to have it"
    )


def optional_library(name: str, requirement: str, needed_by: str) -> Any:
    """Imports and returns a library that only some configs need.

    Args:
        name: what to import ("pandas").
        requirement: what pip is to install, with versions.
        needed_by: what cannot do without it, for the message.

    Raises:
        UserError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{needed_by}: needs {name}, which cannot be imported ({error}): "
            f"pip install {requirement}"
        ) from None


# Run folders -----------------------------------------------------------------------------------


LATEST = ".latest"  # in a folder of runs: the name of the one that was started or resumed last


@contextlib.contextmanager
def new_run_folder(
    save_dir: str | Path, title: str, name: str | None = None
) -> Generator[Path, None, None]:
    """Makes and yields `save_dir/title/name`; the name is the date and time unless given.

    If what is done within fails, the run never began, and the folder is removed.
    """
    folder = _make_run_folder(Path(save_dir) / title, name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(UserError):
            set_up_logging()  # lets go of train.log
        shutil.rmtree(folder, ignore_errors=True)
        raise


def latest_run(save_dir: str | Path) -> Path:
    """Returns the run folder under `save_dir` that was started or resumed last.

    Training writes its name into a file: neither a clock nor what other commands write into run
    folders counts. Without that file, or that run, it is the one with the newest metrics.
    """
    runs = [config.parent for config in Path(save_dir).glob("*/*/config.json")]
    if not runs:
        raise UserError(f"{save_dir}: no run is there yet; name one by its path")
    with contextlib.suppress(OSError, ValueError):
        name = Path(save_dir, LATEST).read_text(encoding="utf-8").strip()
        runs = [run for run in runs if f"{run.parent.name}/{run.name}" == name] or runs
    return max(runs, key=_last_trained)


def _last_trained(run):
    """When training last wrote into a run folder, in seconds."""
    for name in ("metrics.jsonl", "train.log", "config.json"):
        with contextlib.suppress(OSError):
            return (run / name).stat().st_mtime
    return 0.0


def check_can_write(folder: str | Path) -> None:
    """Checks that a folder can be made and written to, and leaves nothing behind.

    Raises:
        UserError: why not, and what to do.
    """
    try:
        there = next(one for one in (Path(folder), *Path(folder).parents) if one.exists())
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _cannot_write(folder, error):
    return UserError(
        f"{folder}: cannot write a run there: {error.strerror}. "
        "Free some space, fix its permissions, or choose another folder: training.save_dir=..."
    )


def _make_run_folder(parent, name):
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for candidate in (name, *(f"{name}_{count}" for count in range(2, 1000))):
            with contextlib.suppress(FileExistsError):
                (parent / candidate).mkdir()
                for content in (b"is there space?", b""):  # a full disk still makes folders
                    (parent / candidate / "train.log").write_bytes(content)
                return parent / candidate
    except OSError as error:
        raise _cannot_write(parent, error) from None
    raise UserError(f"{parent}: {name} and 998 folders like it exist; remove some")


# Logging ---------------------------------------------------------------------------------------


STYLES = {"dim": "2", "bold": "1", "green": "32", "yellow": "33", "red": "31"}


def styled(text: str, style: str, stream: Any) -> str:
    """Returns the text in a style of STYLES where the stream is a terminal that may have colours.

    It may not where NO_COLOR is set (https://no-color.org).
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\033[{STYLES[style]}m{text}\033[0m"


class ConsoleFormatter(logging.Formatter):
    """The console's lines: on a terminal what matters stands out by its colour."""

    LEVELS = ((logging.ERROR, "red"), (logging.WARNING, "yellow"))

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        line, message = super().format(record), record.message
        head, found, rest = line.partition(message)
        style = next((style for level, style in self.LEVELS if record.levelno >= level), None)
        style = style or ("green" if message.startswith("Finished!") else None)
        style = style or ("bold" if message.startswith("---- STARTING") else None)
        body = styled(found, style, sys.stdout) if style else found
        return (styled(head, "dim", sys.stdout) if head else "") + body + rest


class LogFile(logging.FileHandler):
    """A log that a full disk does not stop: lost lines are reported once, on the console."""

    reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Handles an error that occurred while a line was written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.reported:
            self.reported = True
            print(
                f"warning: {self.baseFilename}: {error.strerror}: lines are lost", file=sys.stderr
            )


def set_up_logging(run: str | Path | None = None, quiet: bool = False) -> logging.Logger:
    """Configures logging by logger_config.json, its files in the run folder; returns the logger.

    Args:
        run: the run folder; without one there is the console alone.
        quiet: let nothing but errors through.
    """
    path = ROOT / "logger_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        handlers = config["handlers"]
        files = [name for name, handler in handlers.items() if "filename" in handler]
        for name in files:
            if run is not None:
                handlers[name]["filename"] = os.path.join(run, handlers[name]["filename"])
                continue
            del handlers[name]
            for logger in (config.get("root", {}), *config.get("loggers", {}).values()):
                logger["handlers"] = [one for one in logger.get("handlers", []) if one != name]
        if isinstance(sys.stdout, io.TextIOWrapper):  # the names of folders may be no text
            sys.stdout.reconfigure(errors="backslashreplace")
        logging.config.dictConfig(config)
    except (AttributeError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        reason = f"{error}: {error.__cause__}" if error.__cause__ else error
        raise UserError(f"{path}: logging.config.dictConfig does not take it: {reason}") from None
    logging.captureWarnings(True)
    logger = logging.getLogger("main")
    logger.addFilter(_make_printable)
    if quiet:
        logger.setLevel(logging.ERROR)
    return logger


def _make_printable(record):
    """Has a line of the log show the names in it as they are, whatever they contain."""
    record.msg, record.args = "\n".join(map(printable, record.getMessage().split("\n"))), None
    return True
