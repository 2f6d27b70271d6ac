"""The test of the sampler's tests: small mistakes in the C++, sown one at a time, each make the comparison fail."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import isotoken.kernels.cpu
import pytest
from isotoken.kernels.cpu.sampler import TeamSampler
from isotoken.kernels.cpu.team import Team

from .samplers import TOP_PS, check_at_random, check_even_nucleus

SOURCES = Path(isotoken.kernels.cpu.__file__).parent / "csrc"
MAX_SEEDS = 60  # those of test_sampler.py

LIBRARY = """
#include "sample.cpp"
ISOTOKEN_EXPORT Team *isotoken_team_start(int32_t, int32_t size, const int32_t *cpus, int32_t spin_us) {
    static const Kernels only{"only", {}, nullptr, sample_rows};
    return new Team(only, size, cpus, spin_us);
}
ISOTOKEN_EXPORT void isotoken_team_destroy(Team *team) { delete team; }
ISOTOKEN_EXPORT int32_t isotoken_sizeof(int32_t) { return sizeof(SampleArgs); }
"""

MUTANTS: dict[str, tuple[str, str, str]] = {
    "words of a counter change places": (
        "noise",
        "word[1] = second, word[3] = first",
        "word[3] = second, word[1] = first",
    ),
    "a round less": ("noise", "round < ROUNDS", "round < ROUNDS - 1"),
    "the seed's upper half is lost": ("noise", "high = (uint32_t)(seed >> 32)", "high = 0"),
    "the position's upper half is lost": ("noise", "(uint64_t)at >> 32;", "0;"),
    "tokens are passed over too soon": ("draw", "(1.0 - (double)chance)", "(1.0 - 0.5 * (double)chance)"),
    "blocks are passed over too soon": ("draw", "LEAST_CHANCE = 0x1p-24f", "LEAST_CHANCE = 0x1p-6f"),
    "the first vector of each block alone": ("draw", "vector < VECTORS", "vector < TOGETHER"),
    "min-p of half": ("draw", ">= (double)min_p)", ">= 0.5 * (double)min_p)"),
    "top-k less one": ("best", "id_of(keys[k - 1]) + 1)", "id_of(keys[k - 1]))"),
    "part of a sort": ("best", "shift < 64", "shift < 54"),
    "a nucleus takes one too many": ("rows", "sum_exactly(view, kept) < top_p", "sum_exactly(view, kept) <= top_p"),
    "top-p before top-k": ("rows", "total = sum(view, kept)", "total = sum(view, Bound())"),
    "the first chunk's weights are lost": ("rows", "int chunk = 0; chunk < num", "int chunk = 1; chunk < num"),
    "what other threads found is lost": (
        "rows",
        "member < crew.size; member++)\n            if",
        "member < 1; member++)\n            if",
    ),
    "weights of cut ties": ("sums", "bound.admits(x[i], start + i) ? x[i]", "true ? x[i]"),
    "equals raise the rank": ("sums", "> x;\n    }\n    return", ">= x;\n    }\n    return"),
    "penalties multiply all": ("row", "x > 0 ? x / penalties.values[i] : x *", "x > 0 ? x * penalties.values[i] : x *"),
    "biases come with the penalties": (
        "row",
        "edited[biases.ids[i]] += biases.values[i]",
        "edited[biases.ids[i]] -= biases.values[i]",
    ),
    "halves of a mask's words change places": ("row", "(int32_t)(allowed >> i)", "(int32_t)(allowed >> (i ^ 16))"),
    "the last token of a tail is lost": ("row", "start + i < size ? values", "start + i < size - 1 ? values"),
    "neighbours under the temperature": (
        "order",
        "return {reaching(y), exceeding(y), id};",
        "return {exceeding(y), exceeding(y), id};",
    ),
    "weights without the temperature": ("order", "1.44269504f / temperature", "1.44269504f"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, and the team compiled: that stays as it is."""
    if not shutil.which("g++"):
        pytest.skip("no g++ here")
    copy = tmp_path_factory.mktemp("mutants") / "csrc"
    shutil.copytree(SOURCES, copy)
    (copy / "library.cc").write_text(LIBRARY)
    compile_with(copy, "-c", "team.cpp", "-o", "team.o")
    return copy


def compile_with(folder: Path, *arguments: str) -> None:
    command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-ffp-contract=off", "-pthread", "-I.", *arguments]
    subprocess.run(command, cwd=folder, check=True)


def sown(folder: Path, name: str) -> Path:
    """Compile the sampler with one mistake, "" being none."""
    library = folder / f"{name.replace(' ', '_').replace(chr(39), '') or 'right'}.so"
    compile_with(folder, "-shared", "library.cc", "team.o", "-o", library.name)
    return library


@pytest.fixture
def mutated(folder: Path, request: pytest.FixtureRequest) -> Iterator[list[TeamSampler]]:
    name: str = request.param
    part, right, wrong = MUTANTS.get(name, ("row", "", ""))
    header = folder / f"sample_{part}.h"
    source = header.read_text()
    assert not name or source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {header.name}"
    header.write_text(source.replace(right, wrong) if name else source)
    try:
        functions = ctypes.CDLL(str(sown(folder, name)))
    finally:
        header.write_text(source)
    functions.isotoken_team_start.restype = ctypes.c_void_p
    functions.isotoken_team_start.argtypes = [ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32]
    functions.isotoken_team_destroy.argtypes = [ctypes.c_void_p]
    teams = [Team(functions, 1), Team(functions, 2)]
    yield [TeamSampler(team) for team in teams]
    for team in teams:
        team.close()


def compare(samplers: list[TeamSampler]) -> None:
    """The part of test_sampler.py that takes any samplers."""
    for top_p in TOP_PS:
        check_even_nucleus(samplers[0], 4, top_p)
    for seed in range(MAX_SEEDS):
        check_at_random(seed, samplers)


@pytest.mark.parametrize("mutated", [""], indirect=True)
def test_without_a_mistake_nothing_fails(mutated: list[TeamSampler]) -> None:
    compare(mutated)


@pytest.mark.slow
@pytest.mark.parametrize("mutated", MUTANTS, indirect=True)
def test_every_sown_mistake_is_found(mutated: list[TeamSampler]) -> None:
    with pytest.raises((AssertionError, IndexError)):  # another token, or one that there is not
        compare(mutated)
