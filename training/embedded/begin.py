"""How the network begins: with heads that look back, find earlier occurrences, and gather names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from net import LOOKING, Net

CHANNELS = 8
"""Pairs of RoPE channels, the fastest, that tell one place back from two."""

#: scores: of a place back, of what was found there, of the nearest name, of two bags of names
SHARPNESS, MATCH, GATHER, LOOK = 2.0, 2.4, 7.0, 0.8
WRITE = 0.32
"""What a head adds to the residual stream, per unit that it reads."""

SEEN = 5
"""About the size of a mark, or of the direction that all share, in the normed input of the third layer."""


@torch.no_grad()
def begin(net: Net, entities: Sequence[int] = (), attributes: Sequence[int] = ()) -> None:
    """Begin with heads that look back: every way of looking things up is built on them, and random
    weights find them last.

    In the first layer head h attends to the token h + 1 places back and writes it down. All embeddings
    share one direction; seen through it, queries and keys are the same at every position but for their
    rotation, which the query leads by its head's offset, so that on the fastest `channels` of RoPE the
    score peaks exactly that far back. In the second layer heads find where the present token, or the one
    before it, stood earlier, and copy what came next ("induction heads", Olsson et al. 2022).

    The tokens of `entities` and of `attributes` are marked, each kind with a direction of its own. Heads of the
    layer before `LOOKING` gather the nearest marked words behind every position, and heads of the first layer
    that looks compare what was gathered, here and there, and copy. Without names these stay as they are.
    """
    form = net.form
    dim, half, group = form.head_dim, form.head_dim // 2, form.heads // form.kv_heads
    keys, values = form.heads * dim, (form.heads + form.kv_heads) * dim
    for block in net.blocks[:2]:
        block.qkv *= 0.2
        block.out *= 0.2
    # large beside what the layers write, so that a word is still to be read off it in the third layer
    net.embedding *= 8
    net.last /= 4
    common = torch.randn(form.hidden)
    common /= common.norm()
    # a direction for each kind of name, by which heads find them
    marks = [torch.linalg.qr(torch.randn(form.hidden, 1))[0][:, 0] for _ in range(2)]
    for mark, tokens in zip(marks, (entities, attributes), strict=True):
        net.embedding[list(tokens)] += mark * net.embedding.norm(dim=1).mean()
    # the direction is as long as the rest of the embedding, so half of the normed input's square
    net.embedding += common * net.embedding.norm(dim=1).mean()
    seen = common / (form.hidden / 2) ** 0.5
    angles = form.theta ** (-torch.arange(CHANNELS).double() / half)
    size = (SHARPNESS * dim**0.5) ** 0.5
    shared = torch.linalg.qr(torch.stack([common, *marks], 1))[0]
    blind = torch.eye(form.hidden) - shared @ shared.T  # what all share tells nothing
    read = torch.linalg.qr(torch.randn(form.hidden, dim))[0].T @ blind  # [dim, hidden]
    written = (blind @ torch.linalg.qr(torch.randn(form.hidden, form.hidden))[0]).view(form.hidden, -1, dim)

    first = net.blocks[0]
    for head in range(form.heads):
        # turned back by the offset: at distance d query and key differ by (d - offset) times the angle
        query = torch.zeros(dim)
        query[:CHANNELS] = size * torch.cos((head + 1) * angles)
        query[half : half + CHANNELS] = -size * torch.sin((head + 1) * angles)
        first.qkv[head * dim : (head + 1) * dim] += torch.outer(query, seen)
        first.out[:, head * dim : (head + 1) * dim] += WRITE * written[:, head % written.shape[1]]
    for lane in range(form.kv_heads):
        at = lane * dim
        first.qkv[keys + at : keys + at + CHANNELS] += size * seen
        first.qkv[values + at : values + at + dim] += read

    second = net.blocks[1]
    slow = torch.cat((torch.arange(half // 2, half), torch.arange(half + half // 2, dim)))
    for lane in range(form.kv_heads):
        at = lane * dim
        back = min(lane, written.shape[1] - 1)  # lane 0 knows what stood 1 place before a key, lane 1 what 2 before
        second.qkv[keys + at + slow] += MATCH * written[:, back].T[slow]
        second.qkv[values + at : values + at + dim] += read
        for head in range(lane * group, (lane + 1) * group):
            wanted = read if lane == 0 or head % 2 else written[:, back - 1].T
            second.qkv[head * dim + slow] += MATCH * wanted[slow]
            second.out[:, head * dim : (head + 1) * dim] += WRITE * read.T

    if not entities:
        return
    third, fourth = net.blocks[LOOKING[0] - 1], net.blocks[LOOKING[0]]
    for block in (third, fourth):
        block.qkv *= 0.2
        block.out *= 0.2
    near = torch.tensor([i for i in range(half) if 0.01 < form.theta ** (-i / half) < 0.08])
    gathered = [torch.linalg.qr(blind @ torch.randn(form.hidden, dim))[0] for _ in range(form.kv_heads)]
    reads = [torch.linalg.qr(blind @ torch.randn(form.hidden, dim))[0].T for _ in range(form.kv_heads)]
    size = (GATHER * dim**0.5 / len(near)) ** 0.5
    for lane in range(form.kv_heads):
        at = lane * dim
        kinds = marks if form.kv_heads == 1 else [marks[lane * 2 // form.kv_heads]]
        for mark in kinds:
            third.qkv[keys + at + near] += size * mark / SEEN
        third.qkv[values + at : values + at + dim] += reads[lane]
        for head in range(lane * group, (lane + 1) * group):
            third.qkv[head * dim + near] += size * common / SEEN
            third.out[:, head * dim : (head + 1) * dim] += WRITE * gathered[lane]
    for lane in range(form.kv_heads):
        at = lane * dim
        pick = torch.randn(len(slow), dim * form.kv_heads) / len(slow) ** 0.5
        both = pick @ torch.cat(gathered, 1).T
        fourth.qkv[keys + at + slow] += LOOK * both
        fourth.qkv[values + at : values + at + dim] += read
        for head in range(lane * group, (lane + 1) * group):
            fourth.qkv[head * dim + slow] += LOOK * both
            fourth.out[:, head * dim : (head + 1) * dim] += WRITE * read.T
    words = F.rms_norm(net.embedding @ blind, (form.hidden,))
    net.probe.copy_(sum(words @ one.T @ other.T for one, other in zip(reads, gathered, strict=True)) / 16)
