"""One thread for torch: small tensors gain nothing from more, and other tests need the cores."""

import torch

torch.set_num_threads(1)
