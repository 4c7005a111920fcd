"""In CI an integration test that was skipped fails the run, and goldens are not rewritten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.records import ROOT

SKIPPING = """
import pytest

@pytest.fixture
def missing():
    pytest.skip("QEMU 10.0 is not there")

def test_by_fixture(missing): pass

@pytest.mark.skip(reason="later")
def test_by_mark(): pass

@pytest.mark.xfail(strict=True)
def test_expected(): assert False

def test_fine(): pass
"""
MODULE = 'import pytest\npytest.skip("no kernel here", allow_module_level=True)\n'


@pytest.fixture
def project(tmp_path):
    """A project with nothing but our conftest.py and tests that skip."""
    shutil.copy(os.path.join(ROOT, "conftest.py"), tmp_path)
    for folder in ("integration", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"test_{folder}_skipping.py").write_text(SKIPPING)
        (tmp_path / folder / f"test_{folder}_module.py").write_text(MODULE)
    return tmp_path


def run(project, *arguments: str, ci: bool) -> tuple[int, str]:
    env = {name: value for name, value in os.environ.items() if name != "CI"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments]
    done = subprocess.run(
        words,
        cwd=project,
        env={**env, **({"CI": "true"} if ci else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_elsewhere_skipping_is_fine(project):
    status, said = run(project, "integration", ci=False)
    assert status == 0, said
    assert "1 passed, 3 skipped, 1 xfailed" in said


@pytest.mark.parametrize(
    ("module", "reasons"),
    [
        ("integration/test_integration_skipping.py", ["QEMU 10.0 is not there", "later"]),
        ("integration/test_integration_module.py", ["no kernel here"]),
    ],
)
def test_in_ci_each_skipped_integration_test_fails(project, module, reasons):
    status, said = run(project, module, ci=True)
    assert status != 0
    assert "an integration test may not be skipped in CI" in said
    assert "skipped" not in said.splitlines()[-1]
    for reason in reasons:
        assert reason in said
    assert run(project, module, ci=False)[0] != 1


def test_in_ci_a_unit_test_may_say_what_the_host_lacks(project):
    status, said = run(project, "tests", ci=True)
    assert status == 0, said


def test_goldens_are_not_rewritten_in_ci(project):
    status, said = run(project, "--update-golden", "tests", ci=True)
    assert status == 4
    assert "--update-golden is refused" in said
