"""The rules of the house, read from the source: layers, names, imports."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import keras_transfer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_transfer"
FILES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))

# A part of the package (a file or a folder) imports lower levels only, and the
# files of a folder each other. Private helpers are level 0.
LEVELS = {
    "backbones": 1,
    "heads": 1,
    "lora": 1,
    "depth": 1,
    "penalties": 1,
    "multipliers": 1,
    "optimizers": 1,
    "schedules": 1,
    "distribute": 1,
    "data": 1,
    "evaluation": 1,
    "probes": 1,
    "reports": 1,
    "builders": 2,
    "doctor": 2,
    "strategies": 2,
    "features": 2,
    "training": 3,
    "selection": 4,
    "tuning": 4,
    "__init__": 5,
}

# Imported inside the function that needs them, in one file of the package.
OPTIONAL = {
    "keras_hub",
    "keras_tuner",
    "matplotlib",
    "openvino",
    "tensorflow_datasets",
    "tensorflow_hub",
}
# Files that import one with themselves, since they have a class of its kind,
# and are imported inside functions alone.
SUBCLASSING = {"tuning/tuner.py": "keras_tuner"}
# Imported inside functions, since that takes a second, wherever needed.
SLOW = {"sklearn"}
FORBIDDEN_MODULES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "print"}


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(part):
    return 0 if part.startswith("_") and part != "__init__" else LEVELS[part]


def imported(path, nodes=None):
    """Yields the full names a file imports, `package.module.name`."""
    here = ["keras_transfer", *path.relative_to(PACKAGE).parent.parts]
    for node in nodes or ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")]
            prefix = ".".join(part for part in module if part)
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def imported_at_once(path):
    """Yields what is imported with the module, not inside its functions."""

    def statements(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(
                child.test
            ):
                continue
            yield child
            yield from statements(child)

    return imported(path, list(statements(parse(path))))


def identifier(path):
    return str(path.relative_to(ROOT))


each_file = pytest.mark.parametrize("path", FILES, ids=identifier)


@each_file
def test_part_has_a_level(path):
    part = part_of(path)
    assert part.startswith("_") or part in LEVELS, (
        f"give {part} a level in LEVELS, and a line in keras_transfer/README.md"
    )


@each_file
def test_imports_lower_levels_only(path):
    part = part_of(path)
    for name in imported(path):
        top, *rest = name.split(".")
        if top != "keras_transfer":
            continue
        other = rest[0] if rest else "__init__"
        if other not in LEVELS and not other.startswith("_"):
            other = "__init__"  # A public name, out of the package itself.
        if level(part) == level(other) == 0:
            continue  # Private helpers may use each other.
        assert other == part or level(other) < level(part), (
            f"{part} (level {level(part)}) imports {name} "
            f"(level {level(other)})"
        )


@each_file
def test_optional_packages_are_imported_inside_functions(path):
    names = set(imported_at_once(path))
    tops = {name.partition(".")[0] for name in names}
    own = SUBCLASSING.get(str(path.relative_to(PACKAGE)))
    assert not tops & ((OPTIONAL | SLOW) - {own})
    for file in SUBCLASSING:
        module = "keras_transfer." + file.removesuffix(".py").replace("/", ".")
        assert not any(name.startswith(module) for name in names)


@pytest.mark.parametrize("package", sorted(OPTIONAL))
def test_optional_package_is_imported_in_one_file(package):
    files = [
        identifier(path)
        for path in FILES
        if any(name.partition(".")[0] == package for name in imported(path))
    ]
    assert len(files) <= 1, files


@pytest.mark.parametrize("path", [*FILES, *RECIPES], ids=identifier)
def test_public_keras_only(path):
    used = {
        ast.unparse(node)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute)
    }
    if path.is_relative_to(PACKAGE):
        used |= set(imported(path))
    else:
        text = path.read_text(encoding="utf-8")
        assert "keras.src" not in text
    for name in used:
        assert not name.startswith(("keras.src", "tensorflow.python"))
        assert not name.startswith("tf.python")


@each_file
def test_no_forbidden_constructs(path):
    for node in ast.walk(parse(path)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: assert"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where}: bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            assert name not in FORBIDDEN_CALLS, f"{where}: {name}()"
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops & FORBIDDEN_MODULES


def lazy_names():
    """The names below `if TYPE_CHECKING:`, each with its module."""
    found = {}
    for node in parse(PACKAGE / "__init__.py").body:
        if isinstance(node, ast.If):
            for child in node.body:
                module = child.module.removeprefix("keras_transfer.")
                found.update({alias.name: module for alias in child.names})
    return found


def test_all_is_table_is_type_checking():
    assert keras_transfer.__all__ == sorted(
        keras_transfer.__all__, key=str.casefold
    )
    assert keras_transfer._MODULES.keys() == set(keras_transfer.__all__)
    assert lazy_names() == keras_transfer._MODULES
    assert dir(keras_transfer) == sorted(
        [*keras_transfer.__all__, "__version__"]
    )


def test_no_public_name_is_also_a_module():
    """Importing `keras_transfer.x` would replace `keras_transfer.x()`."""
    modules = {part_of(path) for path in FILES}
    assert not modules & set(keras_transfer.__all__)


@pytest.mark.parametrize("name", keras_transfer.__all__)
def test_public_name_resolves(name):
    assert getattr(keras_transfer, name) is not None


def test_unknown_name_raises():
    with pytest.raises(AttributeError, match="no attribute 'load_backbones'"):
        keras_transfer.load_backbones  # noqa: B018


def run_python(code):
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_import_is_lazy():
    run_python(
        "import sys, keras_transfer\n"
        "loaded = {'keras', 'numpy', 'tensorflow'} & set(sys.modules)\n"
        "sys.exit(', '.join(loaded) or None)"
    )


def test_all_names_resolve_without_optional_packages():
    run_python(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        "import keras_transfer\n"
        "for name in keras_transfer.__all__:\n"
        "    getattr(keras_transfer, name)\n"
    )
