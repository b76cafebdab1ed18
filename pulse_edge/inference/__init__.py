"""From a judged page to an answer: tiles, vision encoder, image tokens, language model."""
