"""Every recipe runs, on noise and in seconds, and prints its numbers."""

import json
import runpy
from pathlib import Path

import pytest

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[1] / "recipes").glob("*.py")
    if not path.name.startswith("_")
)


def run(path, monkeypatch, capsys, *arguments):
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr("sys.argv", [path.name, *arguments])
    runpy.run_path(str(path), run_name="__main__")
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_smoke(path, monkeypatch, capsys, tmp_path):
    result = run(path, monkeypatch, capsys, "--smoke")
    assert result
    if path.stem == "quickstart":
        names = {p.name for p in (tmp_path / "runs/quickstart").iterdir()}
        assert names == {
            "confusion.png",
            "learning_curves.png",
            "model.keras",
        }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_documented_and_short(path):
    text = path.read_text("utf-8")
    assert f"python recipes/{path.name}" in text
    assert len(text.splitlines()) <= 210


def test_what_is_missing_is_said(monkeypatch, capsys):
    path = next(p for p in RECIPES if p.stem == "classify_images")
    with pytest.raises(SystemExit):
        run(path, monkeypatch, capsys)
    assert "--data is needed" in capsys.readouterr().err
