"""A GPT writes: one token a step from the keys and values of those before, and the program reads each token, so each step blocks."""
import torch

import torch_common
from torch_model import GPT


def make(device, small):
    model = GPT(small).to(device).eval()
    if device == "cuda":
        model = model.half()
    prompt = torch.randint(model.vocabulary, (1, 8), device=device)
    pasts, token, place = None, None, 0

    @torch.inference_mode()
    def step():
        nonlocal pasts, token, place
        if pasts is None or place == model.context: # begins again, as a next question would
            pasts, token, place = [[] for _ in model.blocks], prompt, 0
        logits = model(token, place, pasts)[:, -1].float()
        place += token.shape[1]
        token = logits.argmax(dim=1, keepdim=True)
        # The token alone would hide small differences.
        return token.item() + logits.max().item() / 1e6

    return step


torch_common.main(make)
