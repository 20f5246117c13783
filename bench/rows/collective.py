"""All-reduce in place between two processes of this machine, against Open MPI and gloo.

Figures are algorithm bandwidth, payload divided by time, the slowest rank's; of four bytes the time itself. Ours works on
registered memory (tr_comm_alloc), in which a trainer keeps its gradients."""
from harness import Row, Times, in_turn, median, peer_side, say

WINDOWS = 7
SIZES = (("64 MiB", 64 << 20, Times(9), Times(20)), ("256 KiB", 256 << 10, Times(8), None), ("4 B", 4, Times(1), None))


def rows(bench):
    say("all-reduce")
    arguments = [str(WINDOWS)] + [str(size) for _, size, _, _ in SIZES]
    seconds = {"ours": {}, "mpi": {}, "gloo": {}}

    def reduce_all(key, command):
        for line in bench.run(command)[1]:
            seconds[key].setdefault(line["key"], []).extend(line["seconds"])
        return []

    def ours():
        return reduce_all("ours", bench.trainrun(bench.program("all_reduce"), *arguments))

    mpi = bench.mpirun("mpi_all_reduce", *arguments)
    gloo = bench.torchrun(bench.peer_script("gloo_all_reduce.py"), *arguments)
    in_turn(bench.rounds, ours, peer_side(lambda command: reduce_all("mpi", command), mpi))
    in_turn(1, ours, peer_side(lambda command: reduce_all("gloo", command), gloo))
    for label, size, mpi_goal, gloo_goal in SIZES:
        for key, name, goal in (("mpi", "Open MPI", mpi_goal), ("gloo", "gloo", gloo_goal)):
            mine, other = median(seconds["ours"].get(size)), median(seconds[key].get(size))
            if size > 4:
                mine, other = size / mine / 1e9, other and size / other / 1e9
                yield Row(f"all-reduce {label}, 2 ranks", "GB/s", mine, other, name, True, goal)
            else:
                yield Row(f"all-reduce {label}, 2 ranks", "us", mine * 1e6, other and other * 1e6, name, False, goal)
