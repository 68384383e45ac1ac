"""
The network and what it computes with.

KV cache, flow matching, video VAE, text encoder, checkpoints.
"""
