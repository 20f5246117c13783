"""The benches: a module each with rows(bench), a generator of rows. The order is that of the table."""
from . import cnn, collective, exactness, memory, start

ALL = {"collective": collective, "start": start, "cnn": cnn, "memory": memory, "exactness": exactness}
