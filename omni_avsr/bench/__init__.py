"""How fast a model is here, stage by stage, and how fast the machine would let it be."""
