"""A stranger's environment: distributions are installed into it with pip, offline, as anybody would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT", "HF_HOME")


class Stranger:
    """Somebody who has isotoken and what it needs, and installs a package of their own beside it.

    The environment sees the packages of the one that runs the tests, so that nothing is downloaded; what is installed
    goes to the stranger's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=False)
        scheme = sysconfig.get_paths(vars={"base": str(folder / "env"), "platbase": str(folder / "env")})
        shared = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        lines = [f"import site; site.addsitedir({path!r})\n" for path in shared]  # their .pth files count too
        (Path(scheme["purelib"]) / "shared.pth").write_text("".join(lines))
        self.python = Path(scheme["scripts"]) / Path(sys.executable).name

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in a folder where no configuration of ours applies."""
        clean = {key: value for key, value in os.environ.items() if key in PASSED_ON}
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.folder,
            env={**clean, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=800,  # for one that hangs, not for a busy machine
            check=False,
        )

    def pip(self, *arguments: str | Path) -> None:
        """Run pip, offline."""
        offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet")
        done = self.run("-m", "pip", arguments[0], *offline, *arguments[1:])
        assert done.returncode == 0, done.stdout + done.stderr

    def install_wheel(self, source: Path) -> Path:
        """Build a wheel of a distribution, from a copy of its source, and install it; return the wheel."""
        wheels, copy = self.folder / "wheels", self.folder / "source"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
        self.pip("wheel", "--wheel-dir", wheels, copy)
        (wheel,) = wheels.glob("*.whl")
        self.pip("install", wheel)
        return wheel

    def isotoken(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command isotoken."""
        return self.run("-c", "import sys; from isotoken.api.cli import main; sys.exit(main())", *arguments, cwd=cwd)

    def conformance(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pytest --pyargs isotoken.conformance`."""
        return self.run("-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "isotoken.conformance", "-q", *arguments)
