"""Mutations drawn by a seed, and whether tests catch them.

    python tools/mutations.py list
    python tools/mutations.py run --tests tests --tests ../before/tests

One mutation a room of the package: a comparison turned round, a number changed
by one, or a statement left out. `list` prints what the seed draws; `run` makes
a copy of the repository, mutates it, and runs the tests of the room from each
folder of tests (of the same layout), `-x`; it prints a line for each mutation:
caught or missed, by folder. A selection of tests is as strong as another one
where it catches what the other one does. A mutation that changes nothing that
can be seen is missed by both.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_transfer"
ROOMS = (
    "structure",
    "schedules",
    "optimizers",
    "evaluation",
    "probes",
    "data",
    "backbones",
    "heads",
    "penalties",
    "doctor",
    "caching",
    "features",
    "training",
    "selection",
    "tuning",
)
MARKS = "not gpu and not exhaustive"  # what CI runs
_OPPOSITES = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Mutation(NamedTuple):
    """A change of one place in one file."""

    path: Path
    line: int
    kind: str
    source: str


def kind_of(node: ast.AST) -> str:
    """Returns how a node can be changed, or `""`."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPPOSITES:
        return "comparison"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return "constant"
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return "statement" if is_call or isinstance(node, ast.AugAssign) else ""


def places_in(path: Path) -> list[tuple[int, str]]:
    """Returns what can be changed in a file: index of the node, and how."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = map(kind_of, ast.walk(tree))
    return [(place, kind) for place, kind in enumerate(kinds) if kind]


def mutate(path: Path, place: int, kind: str) -> Mutation:
    """Changes one node of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node: Any = list(ast.walk(tree))[place]
    line = node.lineno
    if kind == "comparison":
        node.ops[0] = _OPPOSITES[type(node.ops[0])]()
    elif kind == "constant":
        node.value += 1
    else:
        for parent in ast.walk(tree):
            for name in ("body", "orelse", "finalbody"):
                body = getattr(parent, name, None)
                if isinstance(body, list) and node in body:
                    body[body.index(node)] = ast.Pass()
    source = ast.unparse(ast.fix_missing_locations(tree))
    return Mutation(path, line, kind, source)


def draw(room: str, seed: int) -> Mutation:
    """Draws a mutation of a room: a file by its size, then a place."""
    generator = random.Random(f"{room} {seed}")
    files = sorted((PACKAGE / room).rglob("*.py"))
    sizes = [path.stat().st_size for path in files]
    while True:
        (path,) = generator.choices(files, sizes)
        places = places_in(path)
        if places:
            kind = generator.choice(sorted({kind for _, kind in places}))
            options = [place for place, k in places if k == kind]
            return mutate(path, generator.choice(options), kind)


def is_caught(mutation: Mutation, room: str, tests: Path) -> bool:
    """Runs the tests of a room on a mutated copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        shutil.rmtree(copy / "tests")
        shutil.copytree(tests, copy / "tests", ignore=ignored)
        mutated = copy / mutation.path.relative_to(ROOT)
        mutated.write_text(mutation.source, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x"]
        command += ["-p", "no:cacheprovider", "-m", MARKS, f"tests/{room}"]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, check=False
        )
        return done.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("list", "run"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=ROOMS)
    parser.add_argument("--tests", type=Path, action="append", default=[])
    options = parser.parse_args()
    for room in options.rooms:
        mutation = draw(room, options.seed)
        place = f"{mutation.path.relative_to(ROOT)}:{mutation.line}"
        line = f"{room:12} {mutation.kind:10} {place}"
        if options.action == "run":
            for tests in options.tests or [ROOT / "tests"]:
                caught = is_caught(mutation, room, tests.resolve())
                line += f"  {tests}: {'caught' if caught else 'missed'}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
