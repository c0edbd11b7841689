"""A small GPT, for training and for writing."""
import torch
from torch import nn
from torch.nn import functional as f


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x, past=None):
        """past: keys and values of what came before, which grow; None while training."""
        batch, length, width = x.shape
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, dim=2))
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            past[:] = [k, v]
        y = f.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.between(x))


class GPT(nn.Module):
    def __init__(self, small):
        super().__init__()
        self.vocabulary, self.context, width, heads, layers = (64, 32, 32, 2, 2) if small else (4096, 512, 512, 8, 8)
        self.tokens, self.places = nn.Embedding(self.vocabulary, width), nn.Embedding(self.context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, self.vocabulary, bias=False)

    def forward(self, tokens, first=0, pasts=None):
        x = self.tokens(tokens) + self.places(torch.arange(first, first + tokens.shape[1], device=tokens.device))
        for n, block in enumerate(self.blocks):
            x = block(x, None if pasts is None else pasts[n])
        return self.head(self.norm(x))
