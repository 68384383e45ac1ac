"""Random weights of networks, and random inputs, that depend on a seed alone."""

import torch


def random(seed, *shape):
    """Return standard normal numbers that depend on the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomize(network, seed=1):
    """Fill a network with weights that keep the size of what passes through, and return it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.dim() > 1
                         else noise * 0.1 + name.endswith(('norm', 'norm.weight')))
    return network
