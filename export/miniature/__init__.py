"""Train a miniature of PULSE: same classes, packing, prompt and files, a thousandth of the size.

    data    lessons from `calibration.synthetic.stream`, read from its process's pipe, in blocks
    model   CLIP tower, projector and Llama under their published names
    teach   heads that teach the tower
    text    the miniature's own SentencePiece model
    plan    stages of the training: tower, language, real signals, words
    run     a training under way: modules, optimizers, progress
    train   the loop: time-boxed, resumable, with a curve in JSON lines
    state   what is saved so that a training can go on
    layout  weights -> a checkpoint in the original LLaVA layout, which `export convert` reads
    carry   a checkpoint -> the demo kit of the package
    curve   the curve as a drawing

Training needs torch 2.11 or later, numpy, sentencepiece and safetensors only.
"""
