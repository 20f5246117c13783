"""The benches: a module each with rows(bench), a generator of rows. The order is that of the table."""
from . import accelerator, checkpoint, cnn, collective, exactness, memory, start, store, stream

ALL = {"collective": collective, "start": start, "cnn": cnn, "memory": memory, "exactness": exactness,
       "store": store, "stream": stream, "accelerator": accelerator, "checkpoint": checkpoint}
