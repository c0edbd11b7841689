"""CUDA graphs: a training step is captured once and launched again and again. On the CPU the step itself runs."""
import torch
from torch import nn
from torch.nn import functional as f

import torch_common


def make(device, small):
    width, rows = (16, 8) if small else (512, 256)
    model = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(width, width), nn.ReLU())]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    batches, target = torch.randn(4, rows, width, device=device), torch.randn(rows, width, device=device)
    x = torch.empty(rows, width, device=device)
    count = 0

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = f.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    def fill():
        nonlocal count
        x.copy_(batches[count % 4])
        count += 1

    if device != "cuda":
        def step():
            fill()
            return train().detach()
        return step

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            fill()
            train()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train()

    def step():
        fill()
        graph.replay()
        return loss.detach().clone()

    return step


torch_common.main(make)
