"""Device selection: CUDA that does not work, or a GPU that is too small."""

from __future__ import annotations

import pytest
from golden_kits import MINIATURE

from pulse_edge import PulseModel
from pulse_edge.errors import DeviceError
from pulse_edge.inference import llama_cpp
from pulse_edge.machine.memory_plan import Workload

pytestmark = pytest.mark.usefixtures("one_core_and_own_cache")


def test_a_broken_driver_ends_on_the_cpu_with_a_notice_and_under_cuda_in_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llama_cpp, "has_cuda", lambda: True)
    monkeypatch.setattr(llama_cpp, "gpus", list)
    with PulseModel.load(MINIATURE, device="auto", workload=Workload(pages=1)) as model:
        assert model.device.startswith("cpu (auto: llama.cpp has CUDA but sees no GPU")
        assert model.fallback is not None
        assert "so the CPU answers" in model.fallback
    with pytest.raises(DeviceError, match=r"sees no GPU.*--device cpu"):
        PulseModel.load(MINIATURE, device="cuda")


def test_a_gpu_that_is_too_small_is_an_error_under_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "has_cuda", lambda: True)
    monkeypatch.setattr(llama_cpp, "gpus", lambda: [llama_cpp.Gpu("GeForce", 200 << 20, 2 << 30)])
    with pytest.raises(DeviceError, match=r"GeForce has 200 MiB free.*no layer"):
        PulseModel.load(MINIATURE, device="cuda")
