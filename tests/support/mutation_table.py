"""Every fault that is put into the converter or the runtime on purpose, and what refuses it."""

from __future__ import annotations

from mutations import (
    PACKED,
    PIXELS,
    SAYS,
    TOKENS,
    WEIGHTS,
    Mutation,
    _adapter_left_out,
    _bilinear,
    _cls_kept,
    _coarse,
    _gelu,
    _letterboxed,
    _linear_rope,
    _no_rotary_of_k,
    _noise_in_the_file,
    _swapped_names,
    _system_prompt,
    _transposed_tile,
    config,
    exchanged,
    manifest,
    packed,
    pictures,
    says,
    scaled,
    weights,
)
from PIL import ImageChops

MUTATIONS = (
    # Faults of a list that an earlier proof was tested with: it detected three.
    Mutation(
        "one matrix scaled by 1.02", scaled("layers.1.mlp.down_proj", 1.02), WEIGHTS, "language"
    ),
    Mutation("k without the rotary permutation", _no_rotary_of_k, WEIGHTS, "language"),
    Mutation(
        "the projector without its first bias",
        weights(lambda n, t: t * 0 if n.endswith("mm_projector.0.bias") else t),
        TOKENS,
        "vision",
    ),
    Mutation(
        "position embeddings shifted by one",
        weights(lambda n, t: t.roll(1, 0) if "position_embedding" in n else t),
        TOKENS,
        "vision",
    ),
    Mutation("newline of zeros", scaled("image_newline", 0), "image_newline", layout="unpad"),
    Mutation(
        "BOS is EOS", says("add_bos_token_id", 2), r"bos_token_id is 2, expected 1", "language"
    ),
    Mutation("gelu for quick_gelu", _gelu, TOKENS, "vision"),
    Mutation("mean and std of 0.5", manifest("vision", mean=(0.5,) * 3, std=(0.5,) * 3), SAYS),
    Mutation("the CLS token instead of the last patch", _cls_kept, TOKENS, "vision"),
    Mutation(
        "the tower's last layer for the selected one",
        config(vision_layers=lambda n: n + 1),
        TOKENS,
        "vision",
    ),
    Mutation(
        "gate and up exchanged", _swapped_names("mlp.gate_proj", "mlp.up_proj"), WEIGHTS, "language"
    ),
    Mutation(
        "RMS epsilon of 1e-6", says("add_layer_norm_rms_eps", 1e-6), "rms_epsilon is", "language"
    ),
    Mutation(
        "rotary base of 12000",
        says("add_rope_freq_base", 12000.0),
        "freq_base is 12000",
        "language",
    ),
    Mutation(
        "EOS is token 0", says("add_eos_token_id", 0), "eos_token_id is 0, expected 2", "language"
    ),
    Mutation(
        "packing read as flat", config(merge="flat"), "packing.merge is 'flat'", layout="unpad"
    ),
    Mutation("1 % noise in the encoder's file", _noise_in_the_file, TOKENS, "vision"),
    Mutation("matrices rounded to 6 bits", _coarse, WEIGHTS, "language"),
    # Weights.
    Mutation(
        "the projector's second matrix transposed",
        weights(lambda n, t: t.T.contiguous() if n.endswith("mm_projector.2.weight") else t),
        TOKENS,
        "vision",
    ),
    Mutation("image tokens of twice the length", scaled("mm_projector.2.", 2), TOKENS, "vision"),
    Mutation(
        "text layers in another order",
        exchanged("model.layers.0.", "model.layers.2."),
        WEIGHTS,
        "language",
    ),
    Mutation(
        "tower layers in another order",
        exchanged("encoder.layers.0.", "encoder.layers.1."),
        TOKENS,
        "vision",
    ),
    Mutation(
        "first and last shard exchanged",
        exchanged("model.embed_tokens", "lm_head"),
        WEIGHTS,
        "language",
    ),
    Mutation(
        "the norms of a layer exchanged",
        _swapped_names("input_layernorm", "post_attention_layernorm"),
        WEIGHTS,
        "language",
    ),
    Mutation(
        "an adapter that is not merged into q", _adapter_left_out, WEIGHTS, "language", "adapter"
    ),
    # What is said.
    Mutation(
        "half the heads",
        says("add_head_count", lambda n: n // 2),
        "head_count is 2, expected 4",
        "language",
    ),
    Mutation(
        "a shorter context", says("add_context_length", 2048), "context_length is 2048", "language"
    ),
    Mutation("linear rope scaling", _linear_rope, "rotary frequencies", "language"),
    Mutation(
        "no space in front of a text",
        says("add_add_space_prefix", False),
        "add_space_prefix",
        "language",
    ),
    Mutation(
        "two tokens exchanged",
        says("add_token_list", lambda t: [*t[:300], t[301], t[300], *t[302:]]),
        SAYS,
        "language",
    ),
    Mutation(
        "scores of the tokens reversed",
        says("add_token_scores", lambda s: [-x for x in s]),
        SAYS,
        "language",
    ),
    Mutation(
        "bytes as normal tokens",
        says("add_token_types", lambda t: [1 if x == 6 else x for x in t]),
        SAYS,
        "language",
    ),
    Mutation(
        "a chat template without USER",
        says("add_chat_template", lambda t: t.replace("USER: ", "")),
        "template",
        "language",
    ),
    Mutation("another system prompt", _system_prompt, "prompt.before is"),
    Mutation("mean of blue first", manifest("vision", mean=lambda m: m[::-1]), "vision.mean"),
    Mutation(
        "pinpoints in another order",
        manifest("packing", grid_pinpoints=lambda p: p[::-1]),
        "grid_pinpoints",
    ),
    # Pixels and packing.
    Mutation(
        "grid tiles cut one pixel to the right",
        pictures(
            lambda tiles, _page: [tiles[0], *(ImageChops.offset(t, -1, 0) for t in tiles[1:])]
        ),
        PIXELS,
    ),
    Mutation("bilinear for bicubic", _bilinear, PIXELS),
    Mutation(
        "two grid tiles exchanged", pictures(lambda t, _page: [t[0], t[2], t[1], *t[3:]]), PIXELS
    ),
    Mutation(
        "no overview", pictures(lambda tiles, _page: tiles[1:]), r"pixels of a page of .* expected"
    ),
    Mutation(
        "the overview after the grid",
        pictures(lambda tiles, _page: [*tiles[1:], tiles[0]]),
        PIXELS,
    ),
    Mutation("the overview with borders", pictures(_letterboxed), PIXELS),
    Mutation("the patches of one tile transposed", packed(_transposed_tile), PACKED),
    Mutation(
        "the patches of one tile transposed, unpadded",
        packed(_transposed_tile),
        PACKED,
        layout="unpad",
    ),
    Mutation(
        "padding that is not removed",
        packed(lambda features, more: more.update(merge="spatial") or features),  # type: ignore[func-returns-value]
        PACKED,
        layout="unpad",
    ),
)
