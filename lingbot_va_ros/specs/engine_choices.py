"""Values of the options that choose how an engine runs; the first one of each is the default."""

DEVICES = ('auto', 'cuda', 'cpu')
DTYPES = ('auto', 'float32', 'bfloat16', 'float16')  # auto: bfloat16 on cuda, float32 on cpu
FULL = 'full'  # weights in the dtype of the network
WEIGHTS = (FULL, 'int8', 'int8_dynamic', 'float8')
ATTENTIONS = ('auto', 'flash', 'sdpa')
# Where the text encoder stays after an instruction was encoded: `release` frees it.
ENCODER_PLACES = ('release', 'cpu', 'device')
