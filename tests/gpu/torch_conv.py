"""A small convolution network is trained: cuDNN, batch norm, pooling, SGD, and the loss is read at each step."""
import torch
from torch import nn
from torch.nn import functional as f

import torch_common


def stage(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
                         nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def make(device, small):
    width, batch = (4, 8) if small else (64, 256)
    model = nn.Sequential(stage(3, width), stage(width, 2 * width), stage(2 * width, 4 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(4 * width, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pictures, labels = torch.randn(4, batch, 3, 32, 32), torch.randint(10, (4, batch))
    if device == "cuda":
        pictures = pictures.pin_memory()
    count = 0

    def step():
        nonlocal count
        x, y = pictures[count % 4].to(device, non_blocking=True), labels[count % 4].to(device)
        count += 1
        loss = f.cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


torch_common.main(make)
