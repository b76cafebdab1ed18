"""A miniature of PULSE, trained from nothing: same classes, packing, prompt and files, a thousandth of the size.

    data   lessons from `calibration.synthetic.stream`, read from its process's pipe, in blocks
    model  CLIP tower, projector and Llama under their published names, and the heads that teach the tower
    text   the miniature's own SentencePiece model
    train  tower, then language, then real signals: time-boxed, resumable, a curve in JSON lines
    layout weights -> a checkpoint in the original LLaVA layout, which `python -m export convert` reads

Needs torch 2.11 or later, numpy, sentencepiece and safetensors only.
"""
