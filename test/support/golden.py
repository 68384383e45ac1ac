"""What the public implementation computed, recorded in test/golden."""

from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / 'golden'
PROMPT = 'stack the cubes'


class RecordedText:
    """The recorded embeddings, in place of the encoder that made them (it is not in the data)."""

    def __init__(self, inputs):
        self.rows = {PROMPT: inputs['prompt_embeds'], '': inputs['negative_prompt_embeds']}

    def encode(self, instruction):
        """Return the embeddings of the prompt or of no prompt."""
        return self.rows[instruction]
