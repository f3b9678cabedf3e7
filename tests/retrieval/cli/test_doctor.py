"""`doctor` describes an installation and checks a bundle."""

from importlib import metadata
from pathlib import Path

import pytest

from retrieval.common.extras import EXTRAS
from tests.support.tiny import write_tiny
from tests.test_cli import run

Captured = pytest.CaptureFixture[str]


def test_versions_and_extras_are_shown(capsys: Captured) -> None:
    assert run(["doctor"]) == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert shown["twotower"] == metadata.version("twotower")
    assert f"numpy {metadata.version('numpy')}" in shown["packages"]
    assert shown.keys() >= {"Python", "threads", "memory", *EXTRAS}
    assert shown["server"].startswith("installed: starlette ")


def test_a_missing_extra_is_described(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS["baselines"].packages, "no_such_module", "no-such-package")
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert 'missing no-such-package; pip install "twotower[baselines]" adds the baselines iALS and BPR' in shown


def test_a_bundle_is_opened(tmp_path: Path, capsys: Captured) -> None:
    bundle = write_tiny(tmp_path / "bundle")
    assert run(["doctor", str(bundle)]) == 0
    assert "opens and answers: 40 items, model abc123abc123" in capsys.readouterr().out
    (bundle / "index.faiss").write_bytes(b"damaged")
    assert run(["doctor", str(bundle)]) == 1
    assert "index.faiss" in capsys.readouterr().err
