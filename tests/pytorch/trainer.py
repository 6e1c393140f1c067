"""A process of `test_processes`: trains its share, says so, waits for a word, and prints what weights it then has."""

import sys

import torch
import xxhash

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from pytorch.networks import loss_of, network, train

run, rank, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
model = network()
with torch.no_grad():
    model[0].bias.add_(rank)  # each process starts elsewhere: the run's weights win
with RemoteOptimizer(model.named_parameters(), run=run, optimizer=gs.AdamW(lr=0.01)) as optimizer:
    train(model, optimizer, range(rank, 2 * steps, 2))
    print("trained", flush=True)
    sys.stdin.readline()  # until all have
    optimizer.pull()
    digest = xxhash.xxh3_128()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    print(digest.hexdigest(), loss_of(model, 1_000).item(), flush=True)
