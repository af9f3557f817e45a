"""The model, as in the paper's figure: encoder, entropy model and coding, decoder, frozen tail."""
