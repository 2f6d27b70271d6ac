"""Build the CPU kernels: one library of several instruction sets, which kernels/cpu/library.py loads by ctypes.

It is no Python module, so one build serves every version of Python. Everything else about the package is in
pyproject.toml. Without a C++ compiler the package installs without the library.
"""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError
from setuptools.modified import newer_group

ROOT = Path(__file__).parent
SOURCES = Path("kernels/cpu/csrc")
X86_64 = platform.machine() in ("x86_64", "AMD64") and sys.platform == "linux"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",  # nobody but the kernels decides what is rounded where
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-g0",
    "-Wno-psabi",
    "-Wno-uninitialized",  # gcc's own header of AVX-512 intrinsics
    "-pthread",
]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
AVX512_BF16 = [*AVX512, "-mavx512bf16", "-mavx512vnni"]
ISAS = {  # units isa_NAME.cpp, best first; plain is always there
    "amx": [*AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
    "avx512_bf16": AVX512_BF16,
    "avx512": AVX512,
    "avx2": AVX2,
}


class BuildKernels(build_ext):
    """Compile each unit with its own flags, and leave out instruction sets that the compiler does not know."""

    def build_extension(self, ext: Extension) -> None:
        """Build the library of all units."""
        optional = [SOURCES / f"isa_{isa}.cpp" for isa in ISAS]
        always = [Path(source) for source in ext.sources if Path(source) not in (*optional, SOURCES / "dispatch.cpp")]
        with ThreadPoolExecutor(cpu_count()) as pool:
            waiting = [pool.submit(self._compile, source) for source in always]
            tried = [pool.submit(self._compile_isa, isa) for isa in ISAS if X86_64]
            objects = [one.result() for one in waiting]
            isas = {isa: built for isa, built in (one.result() for one in tried) if built}
        macros = [f"-DISOTOKEN_WITH_{isa}" for isa in isas]
        objects += [*isas.values(), self._compile(SOURCES / "dispatch.cpp", macros)]
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)  # a process may have it loaded
        output = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, output, extra_postargs=["-pthread"], target_lang="c++")

    def get_ext_filename(self, fullname: str) -> str:
        """Return the library's file name, which names no version of Python."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def _compile_isa(self, isa: str) -> tuple[str, str]:
        try:
            return isa, self._compile(SOURCES / f"isa_{isa}.cpp", ISAS[isa])
        except CompileError as error:
            print(f"warning: the CPU kernels come without {isa}: {error}", file=sys.stderr)
            return isa, ""

    def _compile(self, source: Path, flags: list[str] | None = None) -> str:
        (made,) = self.compiler.object_filenames([str(source)], output_dir=self.build_temp)
        headers = [str(header) for header in SOURCES.glob("*.h")]
        if self.force or newer_group([str(source), "setup.py", *headers], made):
            self.compiler.compile([str(source)], output_dir=self.build_temp, extra_postargs=[*FLAGS, *(flags or [])])
        return str(made)


class PackageModules(build_py):
    """The package's modules: its folder is the checkout itself, where this file lies too."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return package, name and file of each."""
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


class PlatformWheel(bdist_wheel):
    """A wheel for a platform and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return what the library needs, which is no version of Python."""
        return "py3", "none", super().get_tag()[2]


sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / SOURCES).glob("*.cpp"))
kernels = Extension("isotoken.kernels.cpu._native", sources, optional=True)
setup(
    ext_modules=[] if sys.platform == "win32" else [kernels],
    cmdclass={"build_ext": BuildKernels, "build_py": PackageModules, "bdist_wheel": PlatformWheel},
)
