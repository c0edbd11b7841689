"""torch.compile: kernels that are made on this machine while the program runs (Triton on a GPU, C++ on the CPU)."""
import torch
from torch import nn

import torch_common


def make(device, small):
    width, rows = (32, 16) if small else (1024, 4096)
    layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4)).to(device)
    x = torch.randn(rows, width, device=device)
    optimizer = torch.optim.SGD(layers.parameters(), lr=1e-2)

    @torch.compile
    def loss_of(x):
        for layer in layers:
            x = torch.softmax(layer(x) + torch.sin(x), dim=1) * x + torch.nn.functional.gelu(x)
        return (x * x).mean()

    def step():
        loss = loss_of(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


torch_common.main(make)
