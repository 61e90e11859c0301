"""Which files of a project a run keeps: its network's code, and nothing that may be a secret."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import utils

LARGEST = 2**26  # bytes of code that are read of a run
TIMEOUT = 10  # seconds for git
MACHINERY = ("data_loader", "inference", "model", "test", "train", "training", "utils")
# Names of files and folders that hold secrets, and of files alone.
SECRET = re.compile(
    r"\.env(\..*)?|.*\.env|[._]netrc|\.pypirc|\.npmrc|\.htpasswd|\.git-credentials|\.run_key"
    r"|id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|tfstate|ovpn)"
    r"|.*(secret|credential|passw(or)?d|private_?key|api_?key|service_?account).*",
    re.IGNORECASE,
)
KEYS = re.compile(  # in the text of a file: as their issuers write them
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{30}|\bhf_\w{30}"
    r"|\bgithub_pat_\w{20}|\bglpat-[\w-]{20}|\bxox[abposr]-[\w-]{10}|\bsk-[\w-]{20}|\bAIza[\w-]{35}"
)
TOKEN = re.compile(r"(.*[._-])?tokens?([._-].*)?(?<!\.py)", re.IGNORECASE)  # no tokenizer


def is_secret(path: str | Path) -> bool:
    """Whether a file may hold passwords or keys, by its name or that of a folder it is in."""
    *_, name = parts = Path(path).parts
    return bool(TOKEN.fullmatch(name)) or any(SECRET.fullmatch(part) for part in parts)


def without_secrets(code: dict[str, bytes]) -> dict[str, bytes]:
    """Returns those of {path: source} that may hold no password or key, by name and by text."""
    return {
        path: source
        for path, source in code.items()
        if not (is_secret(path) or KEYS.search(source.decode(errors="replace")))
    }


def ignored_by_git(paths: set[str], folder: Path) -> set[str]:
    """Returns those of the paths, relative to the folder, that git ignores; {} without git."""
    command = ["git", "check-ignore", "--no-index", "--stdin", "-z"]
    content = os.fsencode("\0".join([".", *sorted(paths)]))
    try:
        done = subprocess.run(
            command, cwd=folder, input=content, capture_output=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    found = set(os.fsdecode(done.stdout).split("\0"))
    return set() if "." in found else found & paths  # the whole project is ignored by another


def kept_paths(base, file):
    """The paths of `model/` and of a network's file, with what this one imports of the project."""
    files = {path for path in (base / "model").rglob("*.py") if path.is_file()}
    return {path.relative_to(base).as_posix() for path in files | _imported_files(base, file)}


def _imported_files(base, file):
    """A file below a folder, those below it that it imports, and their packages' __init__.

    What belongs to the template's machinery is left out: it is used as it is now.
    """
    found, waiting = set(), [file]
    while waiting:
        file = waiting.pop()
        if file in found or not _may_be_kept(base, file):
            continue
        found.add(file)
        packages = [folder / "__init__.py" for folder in file.parents if folder != base]
        imported = [base / path for path in _imports(base, file)]
        waiting += [path for path in (*packages, *imported) if path.is_file()]
    return found


def _may_be_kept(base, file):
    """Whether a file is code of a project: no machinery, no library's, and not model/'s."""
    if not (file.is_relative_to(base) and file.is_file()) or "site-packages" in file.parts:
        return False
    top = file.relative_to(base).parts[0].removesuffix(".py")
    return top not in MACHINERY and not _is_a_librarys(top)


def _is_a_librarys(top):
    """Whether Python finds a module of this name outside of the project."""
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    origin = Path(spec.origin) if spec and spec.has_location else None
    return origin is not None and (
        not origin.is_relative_to(utils.ROOT) or "site-packages" in origin.parts
    )


def _imports(base, file):
    """The paths, from the top of a folder, of what a file may import: modules and packages."""
    package = file.relative_to(base).parent.parts
    try:
        nodes = ast.walk(ast.parse(read_code(file)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base_parts = [*start, *(node.module.split(".") if node.module else ())]
            names = [base_parts, *([*base_parts, alias.name] for alias in node.names)]
        for parts in filter(None, names):
            path = Path(*parts)
            yield from (path.with_suffix(".py"), path / "__init__.py")


def read_code(path, most=LARGEST):
    """The content of a file; one that is no file, or too large, is an OSError."""
    if not path.is_file() or path.stat().st_size > most:
        raise OSError(f"{path}: no file of at most {most} bytes")
    return path.read_bytes()
