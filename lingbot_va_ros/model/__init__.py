"""The model: network, KV cache, flow matching, video VAE, text encoder, checkpoints."""
