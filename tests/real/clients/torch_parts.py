"""What PyTorch does with its own kernels left out: torch_parts.py NAME. Ends with 0 if it was right."""
import sys

import torch

torch.manual_seed(0)
x, w = torch.randn(64, 96), torch.randn(96, 32)


def copies():
    pinned = x.pin_memory()
    there = pinned.to("cuda", non_blocking=True)
    back = torch.empty_like(x).pin_memory()
    back.copy_(there, non_blocking=True)
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return torch.equal(there.cpu(), x) and torch.equal(back, x) and pinned.is_pinned() and not x.is_pinned() and 0 < free < total


def streams():
    a, b = torch.cuda.Stream(), torch.cuda.Stream(priority=-1)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    y = torch.empty(1 << 20, device="cuda")
    with torch.cuda.stream(a):
        begin.record()
        y.zero_()
        end.record()
    b.wait_event(end)
    with torch.cuda.stream(b):
        z = y.clone().cpu()
    end.synchronize()
    return end.query() and begin.elapsed_time(end) >= 0 and z.abs().sum().item() == 0


def fft():
    c = x.to(torch.complex64)
    return torch.allclose(torch.fft.fft(c.cuda()).cpu(), torch.fft.fft(c), atol=1e-3)


def bmm():
    a, b = x.view(4, 16, 96), w.expand(4, 96, 32).contiguous()
    return torch.allclose(torch.bmm(a.cuda(), b.cuda()).cpu(), torch.bmm(a, b), atol=1e-4)


def conv():
    image, filters = torch.randn(1, 3, 16, 16), torch.randn(4, 3, 3, 3)
    there = torch.nn.functional.conv2d(image.cuda(), filters.cuda()).cpu()
    return torch.allclose(there, torch.nn.functional.conv2d(image, filters), atol=1e-4)


def no_kernel():
    """Machine code alone: the documented error, at the call, and the process goes on."""
    y = x.cuda()
    try:
        y + 1
    except torch.AcceleratorError as error:
        return "no kernel image" in str(error) and torch.equal(y.cpu(), x)
    return False


sys.exit(0 if globals()[sys.argv[1].replace(" ", "_")]() else 1)
