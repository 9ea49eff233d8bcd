"""The rules of the house, read from the source: storeys, names, sizes."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_transfer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_transfer"
FILES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))

# A room (a folder, or a file at the top) imports rooms of lower storeys, and on
# its own storey those named before it.
STOREYS = (
    ("_utils", "structure"),
    (
        "schedules",
        "optimizers",
        "distribute",
        "reports",
        "evaluation",
        "probes",
        "data",
        "backbones",
        "heads",
        "tasks",
        "exporters",
    ),
    ("auxiliary", "penalties", "builders", "strategies", "doctor"),
    ("caching",),
    ("features", "training"),
    ("selection", "curation", "experiments"),
    ("tuning",),
    ("cli", "__main__", "__init__"),
)
RANKS = {
    room: (storey, place)
    for storey, rooms in enumerate(STOREYS)
    for place, room in enumerate(rooms)
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in FILES
}

# Nothing is larger, docstrings and comments of functions not counted.
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION, MOST_FIELDS = 450, 60, 14

# Imported inside the function that needs them, in one file of the package.
OPTIONAL = {
    "keras_hub",
    "keras_tuner",
    "matplotlib",
    "openvino",
    "pillow_heif",
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


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


def module_of(name):
    """The module of the package that a full name belongs to, or `None`."""
    parts = name.split(".")
    if parts[0] != "keras_transfer":
        return None
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        for found in (module, f"{module}.__init__"):
            if found in MODULES:
                return found
    return None


@each_file
def test_room_has_a_storey(path):
    room = room_of(path)
    assert room in RANKS, (
        f"give {room} a place in STOREYS, and a line in "
        "keras_transfer/README.md"
    )


README = PACKAGE / "README.md"


def test_readme_has_a_row_for_each_room_in_order():
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    assert rows == [
        (str(storey), room)
        for storey, rooms in enumerate(STOREYS)
        for room in rooms
    ]


def paths_in(text):
    """Yields the code of a README that names a file or folder."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", text):
        name = code.split()[0]
        if re.fullmatch(r"[A-Za-z_][\w/.-]*(/|\.(py|sh|md))", name):
            yield name


@pytest.mark.parametrize("name", sorted(set(paths_in(README.read_text()))))
def test_path_of_the_readme_exists(name):
    assert any((folder / name).exists() for folder in (PACKAGE, ROOT))


def modules_in(text):
    """Yields `room.name`, wherever a README has it, diagrams included."""
    rooms = "|".join(room for room in RANKS if (PACKAGE / room).is_dir())
    yield from re.findall(rf"(?<![\w./])((?:{rooms})(?:\.[A-Za-z]\w*)+)", text)


@pytest.mark.parametrize("name", sorted(set(modules_in(README.read_text()))))
def test_module_of_the_readme_exists(name):
    """A module, or a name that a module or the `__init__` of a room has."""
    module = module_of(f"keras_transfer.{name}")
    names = f"keras_transfer.{name}".split(".")
    rest = names[len(module.removesuffix(".__init__").split(".")) :]
    assert not rest or rest[0] in names_in(MODULES[module])


def names_in(path):
    """The names that a module defines, imports or lists as text."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.Constant):
            yield node.value


def test_storeys_name_rooms_that_exist():
    assert {room_of(path) for path in FILES} == set(RANKS)


@each_file
def test_imports_point_downwards(path):
    room = room_of(path)
    for name in imported(path):
        module = module_of(name)
        if module is None:
            continue
        other = module.split(".")[1]
        assert other == room or RANKS[other] < RANKS[room], (
            f"{room} imports {name}, which is in a room above or beside it"
        )


def test_no_module_imports_itself_by_way_of_others():
    """What is only imported for type checking does not count."""
    graph = {}
    for module, path in MODULES.items():
        nodes = without_type_checking(parse(path))
        names = imported(path, list(nodes))
        graph[module] = {module_of(name) for name in names} - {None, module}
    left = dict(graph)
    while free := [m for m, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"these import each other in a circle: {sorted(left)}"


def without_type_checking(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(
            child.test
        ):
            continue
        yield child
        yield from without_type_checking(child)


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
def test_optional_package_is_imported_in_one_place(package):
    """In one file, or in the files of one room that is about it."""
    files = [
        path
        for path in FILES
        if any(name.partition(".")[0] == package for name in imported(path))
    ]
    rooms = {room_of(path) for path in files}
    assert len(files) <= 1 or (rooms == {"reports"}), files


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


# --- Sizes ---


@each_file
def test_file_is_small(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES_OF_FILE


@each_file
def test_functions_and_classes_are_small(path):
    for node in ast.walk(parse(path)):
        where = f"{identifier(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.FunctionDef):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert code_lines(node, lines) <= MOST_LINES_OF_FUNCTION, where
        if isinstance(node, ast.ClassDef):
            assert len(fields_of(node)) <= MOST_FIELDS, where


def code_lines(function, lines):
    """Counts the lines of a body that are neither docstring nor comment."""
    body = function.body[ast.get_docstring(function) is not None :]
    if not body:
        return 0
    text = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(x.strip()) and not x.strip().startswith("#") for x in text)


def fields_of(node):
    """What the instances of a class hold: annotations, or `self.x = ...`."""
    annotated = {
        child.target.id
        for child in node.body
        if isinstance(child, ast.AnnAssign)
        and isinstance(child.target, ast.Name)
    }
    assigned = {
        target.attr
        for child in ast.walk(node)
        if isinstance(child, ast.Assign | ast.AnnAssign)
        for target in getattr(child, "targets", [getattr(child, "target", 0)])
        if isinstance(target, ast.Attribute)
        and ast.unparse(target.value) == "self"
    }
    return annotated | assigned


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
    rooms = {room_of(path) for path in FILES}
    assert not rooms & set(keras_transfer.__all__)


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
