"""The memory plan: its figures against llama.cpp's own, what it picks when memory is short, and the
GPU's share."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest
from checkout import ROOT

from pulse_edge import PulseModel
from pulse_edge.errors import KitError, MemoryShortage, UsageError
from pulse_edge.inference import llama_cpp
from pulse_edge.kit import gguf_header
from pulse_edge.kit.kit import Kit, open_kit
from pulse_edge.kit.manifest import File, Language, Manifest, Packing, Prompt, Vision
from pulse_edge.machine import memory, memory_plan
from pulse_edge.machine.memory_plan import Workload

MINIATURE = ROOT / "pulse_edge" / "assets" / "kits" / "miniature"
PAGE = ROOT / "pulse_edge" / "assets" / "example_page.png"
GIB = 1 << 30
LLAMA_7B = {"d": 4096, "ff": 11008, "layers": 32, "heads": 32, "kv": 32}
GROUPED = {"d": 2048, "ff": 5632, "layers": 4, "heads": 16, "kv": 4}
AVX2 = frozenset({"avx2"})


def header(
    path: Path, *, d: int, ff: int, layers: int, heads: int, kv: int, kind: str = "Q4_K"
) -> Path:
    """A GGUF file of these shapes that is all hole: its header is right, and it takes a few
    kilobytes of disk."""
    quantized = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), "llama")
    for add, value in (
        (writer.add_context_length, 4096),
        (writer.add_embedding_length, d),
        (writer.add_block_count, layers),
        (writer.add_feed_forward_length, ff),
        (writer.add_head_count, heads),
        (writer.add_head_count_kv, kv),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, d // heads),
        (writer.add_vocab_size, 32000),
        (writer.add_tokenizer_model, "none"),
    ):
        add(value)  # type: ignore[operator]
    total = 0

    def tensor(name: str, *shape: int) -> None:
        nonlocal total
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
            total += 4 * shape[0]
            return
        rows = gguf.quant_shape_to_byte_shape(shape, quantized)
        writer.add_tensor_info(
            name, rows, np.dtype(np.uint8), int(np.prod(rows)), raw_dtype=quantized
        )
        total += int(np.prod(rows))

    tensor("token_embd.weight", 32000, d)
    tensor("output_norm.weight", d)
    tensor("output.weight", 32000, d)
    narrow = d * kv // heads
    for i in range(layers):
        for name, *shape in (
            ("attn_norm", d),
            ("ffn_norm", d),
            ("attn_q", d, d),
            ("attn_k", narrow, d),
            ("attn_v", narrow, d),
            ("attn_output", d, d),
            ("ffn_gate", ff, d),
            ("ffn_up", ff, d),
            ("ffn_down", d, ff),
        ):
            tensor(f"blk.{i}.{name}.weight", *shape)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = path.stat().st_size
    with open(path, "r+b") as f:
        f.truncate(size + -size % 32 + total)
    return path


def manifest(
    sizes: gguf_header.Header, *, d: int, heads: int, kv: int, layers: int, **_: int
) -> Manifest:
    """Of a kit with PULSE's tiles and this language model."""
    encoder = {
        "vision.onnx": File(600_000_000, "0" * 64),
        "llm.gguf": File(sizes.bytes, "0" * 64),
    }
    grids = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    return Manifest(
        manifest_version=1,
        id="shapes",
        demonstration=True,
        created="2026-01-02T03:04:05+00:00",
        files=encoder,
        language=Language("llm.gguf", "Q4_K", 4096, d, layers, d * kv // heads, 32000),
        vision=Vision("vision.onnx", "fp16", 336, 24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        packing=Packing("anyres", "flat", grids, None),
        prompt=Prompt("plain", "", "{question}", 1024),
        source={},
        parity={},
        versions={},
    )


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("7b")
    sizes = gguf_header.read(
        header(folder / "llm.gguf", **LLAMA_7B, kind="Q4_0")
    )  # of as many bits as Q4_K
    return Kit(folder, manifest(sizes, **LLAMA_7B), "0" * 64)


@pytest.mark.parametrize("shape", [LLAMA_7B, GROUPED])
@pytest.mark.parametrize(("batch", "context"), [(256, 4096), (64, 4096), (256, 2048)])
def test_the_compute_buffer_is_llama_cpps_own(
    shape: dict[str, int], batch: int, context: int, tmp_path: Path
) -> None:
    log_lines: list[str] = []
    lib, path = llama_cpp.library(), header(tmp_path / "llm.gguf", **shape)
    params = lib.llama_model_default_params()
    params.no_alloc, params.load_mode, params.n_gpu_layers = True, lib.LLAMA_LOAD_MODE_NONE, 0
    callback = lib.llama_log_callback(lambda _level, text, _data: log_lines.append(text.decode()))
    lib.llama_log_set(callback, None)
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    how = lib.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_ubatch = context, batch, batch
    how.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    llama_context = lib.llama_init_from_model(model, how)
    try:
        (line,) = [x for x in log_lines if "compute buffer size" in x]
    finally:
        lib.llama_free(llama_context)
        lib.llama_model_free(model)
        llama_cpp.library()  # takes the log back
    theirs = float(line.split("=")[1].split("MiB")[0]) * memory.MIB
    sizes = gguf_header.read(path)
    ours = memory_plan.part_bytes(
        manifest(sizes, **shape), sizes, Workload(), context, batch, exact_int8=False
    )["compute"]
    copied = (
        batch * 4 * context * sizes.heads // 2
    )  # of the scores, which llama.cpp keeps elsewhere
    assert ours - copied == pytest.approx(theirs, rel=0.07)


def test_the_header_agrees_with_the_gguf_library(tmp_path: Path) -> None:
    sizes = gguf_header.read(MINIATURE / "llm.gguf")
    reader = gguf.GGUFReader(MINIATURE / "llm.gguf")
    matrices = [t for t in reader.tensors if len(t.shape) > 1]
    assert sizes.by_type == {"Q8_0": sum(int(t.n_bytes) for t in matrices)}
    assert sizes.layers == 4
    assert sum(sizes.by_layer) == sum(
        int(t.n_bytes) for t in reader.tensors if t.name.startswith("blk.")
    )
    assert sizes.embedding == next(
        int(t.n_bytes) for t in reader.tensors if t.name == "token_embd.weight"
    )
    broken = tmp_path / "cut.gguf"
    broken.write_bytes((MINIATURE / "llm.gguf").read_bytes()[:900])
    with pytest.raises(KitError, match=r"cut\.gguf: its header cannot be read"):
        gguf_header.read(broken)


def picks(
    kit: Kit, workload: Workload, budget: float, monkeypatch: pytest.MonkeyPatch
) -> memory_plan.Plan:
    monkeypatch.setattr(memory, "available", lambda: int(budget * GIB))
    monkeypatch.setattr(memory, "resident", lambda: 0)
    return memory_plan.make(kit, workload, exact_int8=False, flags=AVX2)


def test_the_plan_for_7b_as_memory_gets_short(
    seven_b: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Workload(pages=1)
    roomy, eight, six = (picks(seven_b, one, budget, monkeypatch) for budget in (16, 7.5, 6.0))
    assert (roomy.batch, roomy.repack, roomy.encoder_first) == (256, True, True)
    assert (eight.batch, eight.repack, eight.encoder_first) == (256, True, True)
    assert not six.repack  # those weights could not be dropped
    assert six.peak - six.idle <= 6 * GIB
    assert six.idle == 32000 * 4096 * 4.5 / 8  # the embedding, 4.5 bits a weight
    assert picks(seven_b, Workload(), 16, monkeypatch).encoder_first is False
    assert picks(seven_b, Workload(pages=3), 16, monkeypatch).encoder_first is False
    assert picks(seven_b, Workload(pages=3), 7.0, monkeypatch).encoder_first is True


def test_weights_whose_own_layout_is_read_in_tiles_stay_mapped(
    seven_b: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header(tmp_path / "llm.gguf", **LLAMA_7B, kind="Q4_K")
    assert not picks(
        Kit(tmp_path, seven_b.manifest, "0" * 64), Workload(pages=1), 16, monkeypatch
    ).repack


def test_a_kit_that_cannot_fit_is_refused_with_figures(
    seven_b: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        MemoryShortage,
        match=r"needs 5\.\d GiB of memory \(program .*KV cache 2\.0 GiB.*4\.0 GiB are free",
    ):
        picks(seven_b, Workload(pages=1), 4, monkeypatch)
    monkeypatch.setattr(memory, "available", lambda: 64 * GIB)
    with pytest.raises(MemoryShortage, match=r"3\.0 GiB are allowed \(--memory\). Allow more"):
        memory_plan.make(seven_b, Workload(pages=1), exact_int8=False, limit=3 * GIB, flags=AVX2)


def test_a_short_answer_takes_a_short_context_and_ends_the_same() -> None:
    kit = open_kit(MINIATURE)
    most, rows = kit.manifest.language.context_length, memory_plan.most_image_tokens(kit.manifest)
    assert memory_plan.context_for(kit.manifest, Workload()) == most
    short = memory_plan.context_for(kit.manifest, Workload(pages=1, tokens=300))
    assert rows + 300 <= short < most
    assert memory_plan.context_for(kit.manifest, Workload(pages=1, tokens=most)) == most
    assert (
        memory_plan.context_for(kit.manifest, Workload(pages=1, tokens=300, image_tokens=200))
        == 512
    )
    assert (
        memory_plan.context_for(kit.manifest, Workload(pages=1, tokens=300, image_tokens=9999))
        == short
    )
    texts = []
    for use in (None, Workload(pages=1, tokens=300)):
        with PulseModel.load(kit, device="cpu", threads=1, workload=use) as model:
            texts.append(model.interpret(PAGE, max_tokens=64).answers)
    assert texts[0] == texts[1]


def test_an_encoder_closed_by_the_plan_cannot_be_used_again() -> None:
    with PulseModel.load(MINIATURE, device="cpu", threads=1, workload=Workload(pages=1)) as model:
        scan = model.encode(PAGE)
        assert model.plan.encoder_first
        model.ask(scan, "What is the heart rate?", 2).answer()
        assert "mapped weights, batches of 256" in model.device
        with pytest.raises(MemoryShortage, match="Encode every page before"):
            model.encode(PAGE)


@pytest.mark.parametrize(("free", "layers"), [(24.0, 33), (4.5, "some"), (0.9, 0)])
def test_layers_go_to_the_gpu_as_its_free_memory_allows(
    seven_b: Kit, free: float, layers: int | str
) -> None:
    sizes = gguf_header.read(seven_b.file("llm.gguf"))
    figures = memory_plan.ladder(seven_b, Workload(), None, AVX2, exact_int8=False)[0]
    taken = memory_plan.gpu_layers(
        int(free * GIB), sizes, figures.parts["kv_cache"], figures.parts["compute"]
    )
    assert 5 < taken < 33 if layers == "some" else taken == layers
    if taken:
        shared = memory_plan.with_gpu(figures, taken, sizes)
        assert shared.gpu_layers == taken
        assert shared.peak < figures.peak


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * GIB), ("6500 MB", 6_500_000_000), ("1.5g", 1_500_000_000), ("4096", 4096)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert memory.parse(text) == size


def test_a_broken_size_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="8GiB"):
        memory.parse("much")


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/memory.max": "6442450944", "sys/fs/cgroup/memory.current": "1073741824"},
        {
            "proc/self/cgroup": "0::/clinic",
            "sys/fs/cgroup/clinic/memory.max": "6442450944",
            "sys/fs/cgroup/clinic/memory.current": "2147483648",
            "sys/fs/cgroup/clinic/memory.stat": "anon 5\ninactive_file 536870912\nactive_file "
            "536870912",
        },
        {
            "proc/self/cgroup": "4:memory:/clinic",
            "sys/fs/cgroup/memory/clinic/memory.limit_in_bytes": "6442450944",
            "sys/fs/cgroup/memory/clinic/memory.usage_in_bytes": "1073741824",
        },
    ],
    ids=["v2 at the top", "v2 with page cache", "v1"],
)
def test_a_control_group_limits_what_is_free(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in ({"proc/meminfo": "MemAvailable: 20971520 kB\n"} | files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert memory.available(tmp_path) == 5 * GIB


def test_freed_memory_goes_back_to_the_system() -> None:
    buffers = [ctypes.create_string_buffer(60_000) for _ in range(2000)]
    del buffers
    memory.give_back()  # must not raise where the C library has no such call
