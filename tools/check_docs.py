"""Compares docstrings with the code they describe, reading the source only.

    python tools/check_docs.py [--prose] [FOLDER]

In FOLDER (default: keras_transfer) it reports, as `file:line: message`, and
then exits with 1:

- a public function, class or method without a docstring;
- `Args:` that are not the parameters, in their order. Those of a class are the
  parameters of its `__init__`, or the fields of a dataclass;
- a parameter whose default is not stated as the last sentence of its text,
  "Defaults to `X`.", or stated as another value than the signature's (for a
  constant of the package either its name or its value will do);
- an exception class that the body raises and `Raises:` does not name;
- a name exported by the package whose docstring has no `Example`.

Public are the modules at the top of the package, and of its folders what their
`__all__` names. The other functions there work for their siblings: a docstring
of one line is enough, and so is none for the methods that Keras documents; an
`Args:` or `Raises:` that they do have is compared all the same.

With `--prose` it also reports docstrings that read badly, by the rules of
`_prose.py`, and counts them by room.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from _docstrings import (
    DEFAULT,
    Definition,
    Function,
    entries,
    has_example,
    split_sections,
)
from _prose import prose

KERAS_METHODS = {
    "build",
    "call",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_config",
    "load_assets",
    "load_own_variables",
    "save_assets",
    "save_own_variables",
    "set_model",
    "set_params",
} | {
    f"on_{what}_{when}"
    for what in (
        "epoch",
        "batch",
        "train",
        "test",
        "predict",
        "train_batch",
        "test_batch",
        "predict_batch",
    )
    for when in ("begin", "end")
}
FACTORIES = {"dict": "{}", "list": "[]", "tuple": "()"}

# What may follow the value: ".", or ", which means ...".
REST = re.compile(r"([,:;] ((?!\. ).)*)?\.")

Constants = dict[str, str]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a signature; `default` is source, "" if any is right."""

    name: str
    default: str | None


def check(folder: Path) -> list[str]:
    """Returns the messages for the package in `folder`, sorted by file."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }
    shared = {
        name: value
        for tree in trees.values()
        for name, value in constants(tree).items()
    }
    exported = exported_names(trees[folder / "__init__.py"])
    found = set()
    messages = []
    for path, tree in trees.items():
        known = shared | constants(tree)
        listed = exported | exported_names(
            trees.get(path.parent / "__init__.py", ast.Module([], []))
        )
        hidden = any(
            part.startswith("_") and part != "__init__.py"
            for part in path.relative_to(folder).parts
        )
        for node in tree.body:
            if not is_public(node) or (hidden and node.name not in listed):
                continue
            found.add(node.name)
            messages += [
                f"{path}:{line}: {message}"
                for line, message in check_definition(
                    node,
                    known,
                    whole=path.parent == folder or node.name in listed,
                    example=node.name in exported,
                )
            ]
    messages += [
        f"{folder / '__init__.py'}:1: `{name}` is exported but not defined"
        for name in sorted(exported - found)
    ]
    return messages


def exported_names(tree: ast.Module) -> set[str]:
    """Returns `__all__` of a module."""
    for name, value in assignments(tree):
        if name == "__all__":
            return set(ast.literal_eval(value))
    return set()


def constants(tree: ast.Module) -> Constants:
    """Returns the source of the values of a module's upper-case names."""
    return {
        name: ast.unparse(value)
        for name, value in assignments(tree)
        if name.isupper()
    }


def assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yields the `name = value` statements at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield ast.unparse(node.target), node.value


def check_definition(
    node: Definition,
    known: Constants,
    whole: bool = True,
    example: bool = False,
    owner: str = "",
) -> Iterator[tuple[int, str]]:
    """Yields `(line, message)` for a function or class and its methods."""
    name = f"{owner}{node.name}"
    doc = ast.get_docstring(node) or ""
    of_keras = bool(owner) and node.name in KERAS_METHODS
    if doc:
        for message in check_docstring(
            node, doc, known, whole and not of_keras, method=bool(owner)
        ):
            yield node.lineno, f"`{name}`: {message}"
        if example and not has_example(doc):
            yield node.lineno, f"`{name}`: no example in the docstring"
    elif not of_keras:
        yield node.lineno, f"`{name}`: no docstring"
    if isinstance(node, ast.ClassDef):
        for child in filter(is_public, node.body):
            yield from check_definition(child, known, whole, owner=f"{name}.")


def check_docstring(
    node: Definition, doc: str, known: Constants, whole: bool, method: bool
) -> Iterator[str]:
    """Yields what is wrong with the docstring `doc` of `node`."""
    sections = split_sections(doc)
    documented = entries(sections.get("Args", sections.get("Attributes", [])))
    if isinstance(node, ast.ClassDef):
        parameters = class_parameters(node)
        bodies = [
            child
            for child in node.body
            if isinstance(child, Function)
            and child.name in {"__init__", "__post_init__"}
        ]
    else:
        parameters = function_parameters(node, method)
        bodies = [node]

    if parameters is not None and (whole or documented):
        names = [parameter.name for parameter in parameters]
        if list(documented) != names:
            yield (
                f"`Args` must be the parameters ({', '.join(names) or 'none'})"
                f" in order. Received: {', '.join(documented) or 'none'}"
            )
        for parameter in parameters:
            if parameter.name in documented:
                text = documented[parameter.name]
                yield from check_default(parameter, text, known)

    if not whole and "Raises" not in sections:
        return
    raised = {name for body in bodies for name in raised_names(body)}
    named = {
        name.strip().rpartition(".")[2]
        for names in entries(sections.get("Raises", []))
        for name in names.split(",")
    }
    for name in sorted(raised - named):
        yield f"raises {name}, which `Raises` does not name"


def check_default(
    parameter: Parameter, text: str, known: Constants
) -> Iterator[str]:
    """Yields what is wrong with the default that `text` states."""
    stated = DEFAULT.search(text)
    if parameter.default is None:
        if stated:
            yield f"`{parameter.name}` has no default, but the text states one"
        return
    if not stated or stated[1] is None:
        yield (
            f"`{parameter.name}` must state its default: "
            f"Defaults to `{parameter.default}`."
        )
    elif not REST.fullmatch(stated[2]):
        yield (
            f"`{parameter.name}`: the default must be the last sentence, "
            "in the form: Defaults to `X`. or Defaults to `X`, ..."
        )
    elif parameter.default and not any(
        same_code(stated[1], value)
        for value in (
            parameter.default,
            known.get(parameter.default.rpartition(".")[2], ""),
        )
    ):
        yield (
            f"`{parameter.name}` defaults to `{parameter.default}`, "
            f"but the text says `{stated[1]}`"
        )


def same_code(a: str, b: str) -> bool:
    """Compares two expressions, spaces and quotes aside."""
    try:
        return ast.dump(ast.parse(a, mode="eval")) == ast.dump(
            ast.parse(b, mode="eval")
        )
    except SyntaxError:
        return False


def function_parameters(node: Function, method: bool) -> list[Parameter]:
    """Returns the parameters of a function, without `self` and `cls`."""
    kinds = node.args
    positional = [*kinds.posonlyargs, *kinds.args]
    missing = [None] * (len(positional) - len(kinds.defaults))
    pairs = list(zip(positional, [*missing, *kinds.defaults], strict=True))
    decorators = {ast.unparse(item) for item in node.decorator_list}
    if method and "staticmethod" not in decorators:
        pairs = pairs[1:]
    if kinds.vararg:
        pairs.append((kinds.vararg, None))
    pairs += zip(kinds.kwonlyargs, kinds.kw_defaults, strict=True)
    if kinds.kwarg:
        pairs.append((kinds.kwarg, None))
    return [
        Parameter(arg.arg, None if value is None else ast.unparse(value))
        for arg, value in pairs
    ]


def class_parameters(node: ast.ClassDef) -> list[Parameter] | None:
    """Returns the parameters of a class, `None` where a base decides them."""
    for child in node.body:
        if isinstance(child, Function) and child.name == "__init__":
            return function_parameters(child, method=True)
    traits = [ast.unparse(item) for item in node.decorator_list + node.bases]
    if not any(
        re.search(r"\b(dataclass|NamedTuple)\b", trait) for trait in traits
    ):
        return None
    return [
        Parameter(child.target.id, field_default(child.value))
        for child in node.body
        if isinstance(child, ast.AnnAssign)
        and isinstance(child.target, ast.Name)
        and not child.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(child.annotation)
        and not is_computed(child.value)
    ]


def field_default(value: ast.expr | None) -> str | None:
    """Returns the default of a dataclass field, `field(...)` included."""
    if value is None:
        return None
    options = field_options(value)
    if options is None:
        return ast.unparse(value)
    if "default" in options:
        return options["default"]
    if "default_factory" in options:
        return FACTORIES.get(options["default_factory"], "")
    return None


def is_computed(value: ast.expr | None) -> bool:
    """Tells a dataclass field that is no parameter: `field(init=False)`."""
    options = field_options(value) or {}
    return options.get("init") == "False"


def field_options(value: ast.expr | None) -> dict[str, str] | None:
    """Returns the options of a `field(...)` call, `None` for anything else."""
    if not isinstance(value, ast.Call):
        return None
    if ast.unparse(value.func) not in {"field", "dataclasses.field"}:
        return None
    return {
        item.arg: ast.unparse(item.value) for item in value.keywords if item.arg
    }


def is_public(node: ast.stmt) -> TypeGuard[Definition]:
    """Tells what needs a docstring; setters and overloads do not."""
    return (
        isinstance(node, Definition)
        and not node.name.startswith("_")
        and not any(
            ast.unparse(item).rpartition(".")[2]
            in {"setter", "deleter", "overload"}
            for item in node.decorator_list
        )
    )


def raised_names(node: ast.AST) -> Iterator[str]:
    """Yields the exception classes that a body raises itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc
            if isinstance(error, ast.Call):
                error = error.func
            name = ast.unparse(error).rpartition(".")[2]
            # `raise error` and `raise make_error()` name no class.
            if name[:1].isupper():
                yield name
        yield from raised_names(child)


def main(arguments: list[str]) -> int:
    """Prints the messages; returns the exit code."""
    folders = [x for x in arguments if x != "--prose"]
    default = Path(__file__).resolve().parents[1] / "keras_transfer"
    folder = Path(folders[0]) if folders else default
    if not (folder / "__init__.py").is_file():
        print(f"{folder} is not a package", file=sys.stderr)
        return 2
    messages = check(folder)
    if "--prose" in arguments:
        messages += prose(folder)
    if messages:
        print("\n".join(messages))
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
