"""The code that a run keeps: copied into its folder, signed, and imported only where it is trusted.

A run folder is a program: its network's code runs when the run is resumed, evaluated or exported.
A signature in it tells a run of this project from one made elsewhere. The key is a file in the
project's folder that only its user can read; all machines that share that folder share the key.
"""

import contextlib
import hashlib
import hmac
import importlib
import importlib.util
import json
import logging
import os
import secrets
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

import utils
from training.common.files import atomic_write_text, temporary_name
from training.common.kept_files import (
    LARGEST,
    ignored_by_git,
    kept_paths,
    read_code,
    without_secrets,
)
from training.common.records import parse_record
from utils import UserError

RECORD = "code.json"  # in a run folder: {"files": {path: SHA-256}, "imports": [...], "signature"}
KEY, KEY_BYTES = ".run_key", 32  # in the project's folder
LISTED = 20  # files that a message names
LOG = logging.getLogger("main")


OPTIONS = ("trust", "own_code", "allow")  # of add_options


def add_options(parser):
    """Adds the options that say whose code may run."""
    parser.add_argument("--trust", action="store_true", help="run the code of a run made elsewhere")
    parser.add_argument("--own-code", action="store_true", help="use this project's model/ instead")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE",
        help='lets the config name functions of a package, as "imports" in it does',
    )  # fmt: skip


# Keeping and signing ---------------------------------------------------------------------------


def keep_code(run: Path, module_name: str, imports: list[str] = ()) -> None:
    """Copies the network's code into the run folder, so that later edits do not change the run.

    Args:
        run: the run folder; it gets the Python files of `model/`, and where the network is defined
            elsewhere in this project its file, with the project's files that this one imports.
        module_name: the module in which the network is defined.
        imports: the packages whose functions the config may name.
    """
    file = Path(getattr(sys.modules.get(module_name), "__file__", None) or "/")
    paths = kept_paths(utils.ROOT, file)
    ignored = ignored_by_git(paths, utils.ROOT)
    code = without_secrets({path: read_code(utils.ROOT / path) for path in paths - ignored})
    unfinished = temporary_name(run / "model")  # a half copy must never be used
    unfinished.mkdir()
    for path, source in sorted(code.items()):
        parts = path.split("/")
        copy = unfinished.joinpath(*parts[1:]) if parts[0] == "model" else run / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source)
    for path in sorted(paths - code.keys()):
        LOG.warning("%s is not kept with the run: git ignores it, or it may hold a secret", path)
    sign(run, code, imports)
    unfinished.rename(run / "model")


def sign(run: Path, code: dict[str, bytes], imports: list[str]) -> None:
    """Records in a run folder that this project made or trusts its code and its config's imports.

    Does nothing where the run folder or the project's folder cannot be written.
    """
    record = {"files": _checksums(code), "imports": sorted(imports)}
    with contextlib.suppress(OSError, UserError):
        record["signature"] = _signature(record, _key(create=True))
        atomic_write_text(run / RECORD, json.dumps(record, indent=4) + "\n")


def renew(run: Path, imports: list[str]) -> None:
    """Signs a run folder of this project again, whose config has come to import other packages."""
    signed = _signed(run)
    if signed and set(signed["imports"]) != set(imports):
        sign(run, _read_code(run, None, signed), imports)


def _signed(run):
    """The record of a run folder, if this project signed it; else None."""
    try:
        record = parse_record(read_code(run / RECORD).decode())
        signature = _signature(record, _key())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    same = hmac.compare_digest(str(record.get("signature")).encode(), signature.encode())
    return record if same else None


def _signature(record, key):
    content = json.dumps([record["files"], record["imports"]], sort_keys=True)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()


def _key(create=False):
    """The project's key, which appears complete or not at all, also for two processes at once."""
    path = utils.ROOT / KEY
    if create and not path.exists():
        new = temporary_name(path)
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: expected {KEY_BYTES} bytes")
    return key


# Importing it again ----------------------------------------------------------------------------


def use_code_of(run: str | Path | None, trust: bool = False, own_code: bool = False) -> Path | None:
    """Lets `import model` find the run's own copy; to be called before anything imports it.

    Returns the path of the run's config.

    A run is trusted that this project signed, or whose code is the project's own to the byte.

    Args:
        run: the run folder; None changes nothing, and is returned.
        trust: use its code although it was made elsewhere, and sign it.
        own_code: leave `import model` as it is.

    Raises:
        UserError: the run was made elsewhere, or its code has changed since.
    """
    if run is None:
        return None
    path = Path(run, "config.json")
    if path.exists() and not path.is_file():  # reading a pipe would not end
        raise UserError(f"{path}: is no file; expected the config of a run")
    run = Path(run).resolve()
    config, signed = _config(run), _signed(run)
    kept = (run / "model").is_dir() and not own_code
    code = _read_code(run, config, signed) if kept else {}
    imports = config["imports"]
    known = signed and (not kept or _checksums(code) == signed["files"])
    if not (known and imports <= set(signed["imports"])):
        if not trust and (imports or not _is_the_projects_own(code)):
            raise UserError(_question(run, code, imports, signed))
        if (trust and not own_code) or not (run / RECORD).exists():
            sign(run, code, imports)
    if code:
        sys.meta_path.insert(0, _KeptCode(run, code))
        importlib.invalidate_caches()
    return path


@contextlib.contextmanager
def code_of(run: str | Path, trust: bool = False, own_code: bool = False):
    """Inside the block, imports find the run's own copy of its network; see `use_code_of`."""
    before = list(sys.meta_path)
    use_code_of(run, trust, own_code)
    names = {name for one in sys.meta_path if one not in before for name in one.kept}
    modules = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    try:
        yield
    finally:
        sys.meta_path[:] = before
        for name in names & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(modules)
        importlib.invalidate_caches()


class _KeptCode:
    """Finds the modules that a run has kept, and no others; those are the project's or libraries'.

    Only what was checked is run: sources as they were read, neither their cached bytecode nor any
    other file beside them.

    Attributes:
        kept: {name of a module: (path of its file, source)}.
    """

    def __init__(self, run, code):
        self.kept, self.packages = {}, set()
        for path, source in code.items():
            parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
            self.kept[".".join(parts)] = (run / path, source)
            self.packages |= {".".join(parts[:end]) for end in range(1, len(parts))}

    def find_spec(self, name, path=None, target=None):
        """Returns the spec of a module that was kept with the run, else None."""
        folder = utils.ROOT.joinpath(*name.split("."))
        if name not in self.kept:
            if name in self.packages and not folder.is_dir():  # the project has it no more
                spec = ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [str(folder)]
                return spec
            return None
        file, source = self.kept[name]
        # What was not kept of a package is in the project.
        folders = [str(folder)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            name, file, loader=_Loader(name, file, source), submodule_search_locations=folders
        )


class _Loader(SourceFileLoader):
    def __init__(self, name, file, source):
        super().__init__(name, str(file))
        self.source = source

    def get_code(self, fullname):
        return self.source_to_code(self.source, self.path)


def kept_files(run: Path) -> dict[str, bytes]:
    """Returns {path in the run folder: source} of the code that a run has kept, to be copied."""
    return without_secrets(_read_code(run, _config(run), _signed(run)))


def _config(run):
    """The config of a run, as far as it says what would run."""
    try:
        config = parse_record(read_code(run / "config.json").decode())
    except (OSError, ValueError, RecursionError, MemoryError):
        config = {}  # `read_config` says what is wrong with it
    imports = config.get("imports")
    imports = imports if isinstance(imports, list) else []
    model = config.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    return {"imports": {str(one) for one in imports}, "model": str(name).partition(":")[0]}


def _read_code(run, config, signed):
    """{path: source} of the code that a run has kept, by its signed record or else by its files."""
    paths = signed["files"] if signed else ()
    if not signed:
        file = run.joinpath(*config["model"].split("."))
        paths = kept_paths(run, file.with_name(f"{file.name}.py"))
    code, left = {}, LARGEST
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            code[path] = read_code(run / path, left)
            left -= len(code[path])
    return code


def _checksums(code):
    return {path: hashlib.sha256(source).hexdigest() for path, source in code.items()}


def _is_the_projects_own(code):
    try:
        return all(read_code(utils.ROOT / path) == source for path, source in code.items())
    except OSError:
        return False


def _question(run, code, imports, signed):
    """What to decide before the code of a run is used."""
    what, files = "was made elsewhere: by another project, machine or user", list(code)
    if signed:
        now = _checksums(code)
        changed = [path for path, checksum in signed["files"].items() if now.get(path) != checksum]
        what, files = "has changed since this project recorded it", changed
    shown = files[:LISTED] + ([f"... ({len(files)} files)"] if files[LISTED:] else [])
    shown += [f"the package {one}, which its config imports" for one in sorted(imports)]
    return (
        f"{run}: {what}. What would run: {', '.join(shown)}. Look at it, then add --trust; or add "
        "--own-code, to use the weights with this project's model/"
    )
