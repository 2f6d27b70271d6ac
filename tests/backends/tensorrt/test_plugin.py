"""Without a GPU or without TensorRT the backend says so, and touches nothing that could end the process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from isotoken.backends.tensorrt import plugin
from isotoken.core.types import Unsupported
from isotoken.plugins.build import EngineConfig, build_engine
from isotoken.plugins.manager import Plugins


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_it_is_unsupported_and_tensorrt_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime would end the process with a segmentation fault."""
    imported: list[str] = []
    monkeypatch.setattr(plugin, "import_module", imported.append)
    without_gpu(monkeypatch)
    with pytest.raises(Unsupported, match="an NVIDIA GPU and its driver are needed, and torch finds none"):
        plugin.load_backend()
    assert "tensorrt" not in imported
    assert "torch" in imported


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Unsupported, match=r"is built without CUDA \(https://pytorch.org"):
        plugin.load_backend()


@pytest.mark.parametrize("package", ["torch", "onnx", "onnx_ir", "tensorrt"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    from isotoken.backends.tensorrt import device

    monkeypatch.setattr(device, "find_gpu", lambda: "")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unsupported, match=f"{package} cannot be imported .*pip install 'isotoken\\[tensorrt\\]'"):
        plugin.load_backend()


def test_with_all_of_it_the_backend_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from isotoken.backends.tensorrt import device

    monkeypatch.setattr(device, "find_gpu", lambda: "")
    backend = plugin.load_backend()
    assert backend.name == "tensorrt"
    assert backend.capabilities.dtypes == {"float32", "float16", "bfloat16"}


@pytest.mark.parametrize(
    ("name", "words"), [("abacus", "not one of cuda"), ("cuda:x", "not one of cuda"), ("cuda:7", r"1 GPU\(s\) found")]
)
def test_devices_are_checked(monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    import torch
    from isotoken.backends.tensorrt.device import open_device

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Unsupported, match=words):
        open_device(name)


def test_an_engine_asked_for_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    plugins = Plugins.load()
    assert "tensorrt" in plugins.backends
    from isotoken.models import BUILTIN

    config = EngineConfig(model=str(BUILTIN["isotoken-small"]), backend="tensorrt")
    with pytest.raises(Unsupported, match="backend tensorrt: an NVIDIA GPU"):
        build_engine(config, plugins, lambda outputs: None)


def test_listing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, isotoken.backends.tensorrt.plugin as p; p.register_backends(lambda *a, **k: None);"
        "print([m for m in ('torch', 'tensorrt', 'onnx_ir', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() in ("[]", "['numpy']")


def test_device_memory_does_on_tensors_what_it_does_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """CudaMemory on a tensor of the CPU and the tests' HostMemory agree on copies and clears."""
    import contextlib

    import numpy as np
    import torch
    from host_device import HostDevice
    from isotoken.backends.tensorrt.device import CudaMemory

    class Here:
        active = staticmethod(contextlib.nullcontext)

    shape = (4, 3, 2, 40)
    data = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    tensor = torch.from_numpy(data.copy().reshape(-1))
    cuda: Any = CudaMemory(Here(), tensor)  # type: ignore[arg-type]
    device = HostDevice()
    with device.active():
        host = device.allocate(data.size, "a test")
        host.upload(data.reshape(-1))
        every = slice(None)
        for memory in (cuda, host):
            memory.copy(shape, (every, 2, every, slice(0, 24)), (every, 0, every, slice(0, 24)))
            memory.clear(shape, (every, 1, every, slice(8, 16)))
        one, other = np.zeros(300, np.uint8), np.zeros(300, np.uint8)
        cuda.download(77, one)
        host.download(77, other)
        device.synchronize()
    assert cuda.num_bytes == host.num_bytes == data.size
    assert (one == other).all()
    assert (one != data.reshape(-1)[77:377]).any()
