"""A character-level transformer, trained on the help texts that come with every Python (no download).

    python train_local.py                          plain PyTorch, one process
    gradserve serve &
    RANK=0 python train_remote.py & RANK=1 python train_remote.py          two processes, one model

Both files are the same program. `diff train_local.py train_remote.py` shows what Gradserve changes.
"""

import argparse
import json
import os
import time
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional as F

CONTEXT, WIDTH, HEADS, LAYERS = 64, 96, 4, 2

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=600, help="gradients that this process computes")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--every", type=int, default=50, help="steps between two looks at the held-out text")
parser.add_argument("--save", help="the model's weights, at the end")
arguments = parser.parse_args()
rank = int(os.environ.get("RANK", "0"))

text = "\n".join(topics[name] for name in sorted(topics))
alphabet = {character: place for place, character in enumerate(sorted(set(text)))}
tokens = torch.tensor([alphabet[character] for character in text])
cut = len(tokens) * 9 // 10
training, held_out = tokens[:cut], tokens[cut:]


class Block(nn.Module):
    """Attention to what came before, then a small network for each character."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        rows, length, _ = x.shape
        q, k, v = (part.view(rows, length, HEADS, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.network(self.norm2(x))


class Transformer(nn.Module):
    """Characters in, the next character's logits out. The table of characters is the last layer, too."""

    def __init__(self):
        super().__init__()
        self.characters, self.places = nn.Embedding(len(alphabet), WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.logits = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(alphabet), bias=False)
        for table in (self.characters, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.logits.weight = self.characters.weight

    def forward(self, x):
        embedded = self.characters(x) + self.places.weight[: x.shape[1]]
        return self.logits(self.norm(self.blocks(embedded)))


def loss_on(source, generator, rows=arguments.batch):
    """Cross-entropy of the next character, on random pieces of the text."""
    starts = torch.randint(len(source) - CONTEXT - 1, (rows, 1), generator=generator)
    piece = source[starts + torch.arange(CONTEXT + 1)]
    return F.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())


@torch.no_grad()
def held_out_loss():
    """Always on the same pieces."""
    return loss_on(held_out, torch.Generator().manual_seed(0), 128).item()


torch.set_num_threads(1)  # one process, one core
torch.manual_seed(0)
model = Transformer()
optimizer = torch.optim.AdamW(model.named_parameters(), lr=1e-3)
batches = torch.Generator().manual_seed(1 + rank)  # each process has batches of its own


def closure():
    optimizer.zero_grad()
    loss = loss_on(training, batches)
    loss.backward()
    return loss


began = time.monotonic()
for step in range(arguments.steps + 1):
    if step % arguments.every == 0 or step == arguments.steps:
        found = {"rank": rank, "step": step, "seconds": time.monotonic() - began, "held_out": held_out_loss()}
        print(json.dumps(found), flush=True)
    if step < arguments.steps:
        optimizer.step(closure)

if arguments.save:
    torch.save(model.state_dict(), arguments.save)
