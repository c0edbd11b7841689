"""A GPT is trained: batches from pinned memory, bfloat16, AdamW, one loss a step."""
import torch
from torch.nn import functional as f

import torch_common
from torch_model import GPT


def make(device, small):
    model = GPT(small).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    batches = torch.randint(model.vocabulary, (8, 4 if small else 16, model.context + 1))
    if device == "cuda":
        batches = batches.pin_memory()
    count = 0

    def step():
        nonlocal count
        batch = batches[count % len(batches)].to(device, non_blocking=True)
        count += 1
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = f.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return step


torch_common.main(make)
