"""The network: encoders, compression, projectors, LLM with Omni-LoRA, decoding. Knows no files and no corpora."""
