"""CLIP's tower, LLaVA's projector and Llama, with the published names and arithmetic.

They are modules of a few lines of their own: the trainer must run with any version of transformers,
and may leave black patches out of the tower and answer several questions on one image prefix.
`convert` proves that they compute what transformers' classes compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu


@dataclass(frozen=True)
class Shape:
    """Sizes of the miniature.

    Widths of the language model are multiples of 256, so that K-quants apply.
    """

    image: int = 336
    patch: int = 28
    vision_width: int = 256
    vision_heads: int = 8
    vision_mlp: int = 1024
    vision_layers: int = 5  # up to the selected hidden state; the checkpoint has one more
    width: int = 256
    heads: int = 4
    mlp: int = 768
    layers: int = 4
    vocabulary: int = 1024
    context: int = 4096

    @property
    def side(self) -> int:
        """Patches along the side of a tile."""
        return self.image // self.patch

    @property
    def patches(self) -> int:
        """Patches of a tile."""
        return self.side**2


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Compute attention in plain products.

    On a CPU in bfloat16 this is three times faster, forward and backward, than torch's fused one.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    out: Tensor = scores.softmax(-1) @ v
    return out


def hidden(visible: Tensor) -> Tensor:
    """Return the mask that is added to scores: 0 where `visible`, -10000 elsewhere."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill_(~visible, -10000.0)


class Slots:
    """The slots of tiles that hold a patch.

    Layers read the patches one after the other; only attention needs the tiles they lie in.
    """

    def __init__(self, occupied: Tensor, dtype: torch.dtype) -> None:
        """Read `occupied` (n, t): whether there is a patch."""
        self._size = occupied.shape
        self._at = occupied.flatten().nonzero()[:, 0]
        self.mask = hidden(occupied)[:, None, None].to(dtype)

    def take(self, x: Tensor) -> Tensor:
        """Gather (n, t, d) -> (patches, d)."""
        return x.flatten(0, 1).index_select(0, self._at)

    def put(self, x: Tensor) -> Tensor:
        """Scatter (patches, d) -> (n, t, d), zero in empty slots."""
        return (
            x.new_zeros(self._size.numel(), x.shape[1])
            .index_copy(0, self._at, x)
            .view(*self._size, -1)
        )


class Attention(nn.Module):
    """CLIP's multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, slots: Slots | None) -> Tensor:
        """Map (n, t, d) -> (n, t, d), or with `slots` (patches, d) -> (patches, d)."""
        q, k, v = (f(x) for f in (self.q_proj, self.k_proj, self.v_proj))
        if slots is not None:
            q, k, v = slots.put(q), slots.put(k), slots.put(v)
        n, t, d = q.shape
        q, k, v = (y.view(n, t, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        attended = (
            attend(q, k, v, None if slots is None else slots.mask).transpose(1, 2).reshape(n, t, d)
        )
        out: Tensor = self.out_proj(attended if slots is None else slots.take(attended))
        return out


class EncoderLayer(nn.Module):
    """CLIP's encoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.vision_width
        self.layer_norm1 = nn.LayerNorm(d)
        self.self_attn = Attention(d, shape.vision_heads)
        self.layer_norm2 = nn.LayerNorm(d)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(d, shape.vision_mlp), "fc2": nn.Linear(shape.vision_mlp, d)}
        )

    def forward(self, x: Tensor, slots: Slots | None) -> Tensor:
        """Map the same shapes as `Attention`."""
        x = x + self.self_attn(self.layer_norm1(x), slots)
        h = self.mlp["fc1"](self.layer_norm2(x))
        out: Tensor = x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))  # CLIP's quick_gelu
        return out


class Tower(nn.Module):
    """CLIP's vision tower up to the selected hidden state."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        d = shape.vision_width
        self.class_embedding = nn.Parameter(0.02 * torch.randn(d))
        self.patch_embedding = nn.Linear(3 * shape.patch**2, d, bias=False)
        self.patch_embedding.weight.data = dct_filters(shape.patch, d)
        self.position_embedding = nn.Parameter(positions(shape.side, d))
        self.pre_layrnorm = nn.LayerNorm(d)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.vision_layers))

    def forward(self, patches: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the features (n, t, d) of normalised `patches` (n, t, 3 p p).

        `tokens` (n, t) is the number of each patch in its tile.
        """
        x = self.patch_embedding(patches) + self.position_embedding[1:][tokens]
        first = (self.class_embedding + self.position_embedding[0]).expand(len(x), 1, -1)
        x = self.pre_layrnorm(torch.cat([first, x], 1))
        slots = None
        if mask is not None:
            low = torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else x.dtype
            slots = Slots(torch.cat([mask.new_ones(len(mask), 1), mask], 1), low)
            x = slots.take(x)
        for layer in self.layers:
            x = layer(x, slots)
        if slots is not None:
            x = slots.put(x)
        out: Tensor = x[:, 1:]
        return out


class Projector(nn.Module):
    """LLaVA's mlp2x_gelu."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.first = nn.Linear(shape.vision_width, shape.width)
        self.second = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., vision width) -> (..., width)."""
        out: Tensor = self.second(gelu(self.first(x)))
        return out


def dct_filters(patch: int, count: int) -> Tensor:
    """Return the first filters (count, 3 p p).

    They are the lowest cosines of luminance, and a few of red against blue and green.
    """
    n = torch.arange(patch, dtype=torch.float32)
    waves = torch.cos(math.pi / patch * (n + 0.5) * n[:, None])  # (frequency, pixel)
    waves /= waves.norm(dim=1, keepdim=True)
    order = sorted(
        ((i, j) for i in range(patch) for j in range(patch)), key=lambda f: f[0] ** 2 + f[1] ** 2
    )
    colours = (
        torch.tensor([[1.0, 1.0, 1.0], [2.0, -1.0, -1.0]]) / torch.tensor([[3.0], [6.0]]).sqrt()
    )
    plain = count - count // 8
    chosen = [(f, colours[0]) for f in order[:plain]] + [
        (f, colours[1]) for f in order[: count - plain]
    ]
    planes = [
        colour[:, None, None] * waves[i][:, None] * waves[j][None] for (i, j), colour in chosen
    ]
    return torch.stack(planes).reshape(count, -1)


def positions(side: int, width: int) -> Tensor:
    """Return sine and cosine of row and column, (side^2 + 1, width), the class token's first."""
    rates = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    wave = torch.cat([angles.sin(), angles.cos()], 1)
    grid = torch.cat(
        [wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)], 2
    ).reshape(side**2, width)
    return 0.5 * torch.cat([torch.zeros(1, width), grid])


class RMSNorm(nn.Module):
    """Llama's normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise in float32, as Llama does."""
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


class DecoderLayer(nn.Module):
    """Llama's decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, m = shape.width, shape.mlp
        self.heads = shape.heads
        self.input_layernorm = RMSNorm(d)
        self.self_attn = nn.ModuleDict({f"{n}_proj": nn.Linear(d, d, bias=False) for n in "qkvo"})
        self.post_attention_layernorm = RMSNorm(d)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(d, m, bias=False),
                "up_proj": nn.Linear(d, m, bias=False),
                "down_proj": nn.Linear(m, d, bias=False),
            }
        )

    def forward(self, x: Tensor, spread: Spread) -> Tensor:
        """Map (n, t, d) -> (n, t, d)."""
        n, t, d = x.shape
        h, a = self.input_layernorm(x), self.self_attn
        q, k, v = (a[f"{c}_proj"](h).view(n, t, self.heads, -1).transpose(1, 2) for c in "qkv")
        q, k = rotate(q, spread).to(v.dtype), rotate(k, spread).to(v.dtype)
        attended = spread.attend(q, k, v)
        x = x + a["o_proj"](attended.transpose(1, 2).reshape(n, t, d))
        h = self.post_attention_layernorm(x)
        out: Tensor = x + self.mlp["down_proj"](
            silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h)
        )
        return out


class Spread:
    """Several turns behind one prefix: each reads the prefix and itself, as if it were alone.

    Positions count in the same way.
    """

    def __init__(self, lengths: Tensor, prefix: int, turns: int, turn: int, half: int) -> None:
        """Set up masks and rotary tables.

        `lengths` (n,) are those of the prefixes, padded to `prefix`; there are `turns` of `turn`
        tokens each; `half` is half a head's width.
        """
        self.prefix, self.turns, self.turn = prefix, turns, turn
        device = lengths.device
        at = torch.arange(prefix, device=device)
        own = torch.arange(turn, device=device)
        positions = torch.cat(
            [at.expand(len(lengths), -1), (lengths[:, None] + own).repeat(1, turns)], 1
        )  # (n, prefix + turns * turn)
        angles = (positions[..., None] * 10000.0 ** (-torch.arange(half, device=device) / half))[
            :, None
        ]
        self.cos, self.sin = angles.cos(), angles.sin()
        self._image = hidden(at[:, None] >= at)
        self._padding = hidden(at < lengths[:, None])[
            :, None, None
        ]  # the part of the prefix that a turn reads
        self._own = hidden(own[:, None] >= own)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend over (n, heads, t, w): the prefix within itself, each turn to the prefix and
        itself."""
        n, heads, _, w = q.shape
        p = self.prefix
        first = attend(q[:, :, :p], k[:, :, :p], v[:, :, :p], self._image.to(q.dtype))
        q, own_k, own_v = (
            x[:, :, p:].reshape(n, heads, self.turns, self.turn, w) for x in (q, k, v)
        )
        q = q * w**-0.5
        far = q.flatten(2, 3) @ k[:, :, :p].transpose(-1, -2) + self._padding.to(q.dtype)
        near = (q @ own_k.transpose(-1, -2) + self._own.to(q.dtype)).flatten(2, 3)
        weights = torch.cat([far, near], -1).softmax(-1).to(v.dtype)
        near = weights[..., p:].reshape(n, heads, self.turns, self.turn, self.turn) @ own_v
        return torch.cat([first, weights[..., :p] @ v[:, :, :p] + near.flatten(2, 3)], 2)


def rotate(x: Tensor, spread: Spread) -> Tensor:
    """Apply Llama's rotary embedding, on halves instead of pairs."""
    cos, sin = spread.cos, spread.sin
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Llama(nn.Module):
    """The language model; input and output embeddings are not tied, as in PULSE."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(
                    p, std=0.02 if p is self.embed_tokens.weight else p.shape[1] ** -0.5 / 2
                )

    def forward(self, image_tokens: list[Tensor], before: Tensor, turns: Tensor) -> Tensor:
        """Return the hidden states (pages, turns, s, d) of the turns' tokens (pages, turns, s).

        `image_tokens` are (t, d) for each page, `before` the token ids before them.
        """
        n, count, length = turns.shape
        start = self.embed_tokens(before)
        longest = max(len(r) for r in image_tokens)
        prefix = [
            torch.cat([start, r, start.new_zeros(longest - len(r), r.shape[1])])
            for r in image_tokens
        ]
        lengths = torch.tensor([len(before) + len(r) for r in image_tokens], device=turns.device)
        x = torch.cat([torch.stack(prefix), self.embed_tokens(turns.flatten(1))], 1)
        half = self.shape.width // self.shape.heads // 2
        spread = Spread(lengths, len(before) + longest, count, length, half)
        for layer in self.layers:
            x = layer(x, spread)
        out: Tensor = self.norm(x[:, spread.prefix :]).view(n, count, length, -1)
        return out
