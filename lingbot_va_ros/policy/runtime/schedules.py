"""
Names of the schedules in which chunks are predicted and executed.

- `sync`: the next chunk is predicted when the running one has ended and is in the memory.
- `async`: the next chunk is predicted while the running one is executed; its frames that are not
  seen yet are imagined by forward dynamics.
- `async_ungrounded`: as `async`, with the running chunk's own forecast for the unseen frames.
"""

SCHEDULES = ('sync', 'async', 'async_ungrounded')
