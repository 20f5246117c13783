"""What exact sums cost a step: the gradients of the CNN summed along the tree over micro-batches, against a plain sum (each
rank adds up its own, then one all-reduce). 8 micro-batches fill the tree, 7 on each of two ranks leave parts over."""
from harness import Row, median, say

WINDOWS = 15
FLOATS = 1199936  # the CNN's gradient, rounded up to whole blocks


def rows(bench):
    say("cost of exactness")
    cases = (2, 8, 14)
    lines = bench.run(bench.trainrun(bench.program("exactness"), str(WINDOWS), str(FLOATS), *map(str, cases)))[1]
    seconds = {(line["name"], line["key"]): median(line["seconds"]) for line in lines}
    for case in cases:
        yield Row(f"exact sum of a step's gradients, 4.8 MB, {case} micro-batches", "ms", 1e3 * seconds["tree", case],
                  1e3 * seconds["plain", case], "a plain sum over ranks")
