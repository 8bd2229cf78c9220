"""What the consumer's report says around its tables: how it was measured, and what that means.

Owns: the words. Does not own: any figure (`consumer_report`).
"""

from __future__ import annotations

INTRODUCTION = """\
Made by `{command}`: medians of {runs} runs and their spread. Each run is a process started as a user would start it, on
a topic that is loaded already, with a group and a prefix of its own; ours and the others take turns, after a run that
does not count, for the servers to warm up. A run counts only when its objects, read back, hold every record of the
topic exactly once, byte for byte."""
CEILING = (
    " With two processes it was {together} CPU-seconds in all, of which {cores} cores give at most {limit} records/s: "
    "more than {ratio} times one process cannot be had on this machine."
)
HOW = """\
## How it was measured

*Window*: from the moment the bench reads that the partitions were assigned (just before the first fetch) to the moment
it reads the line `Uploaded` with which the last record is in an object that the store has acknowledged. Interpreter,
imports, joining the group are start-up, not in the window. *CPU-s per million*: user and system time of the sink's
process, all threads, in the window, by the kernel's clock, divided by all records; no sink has child processes
(checked). *records/s, MB/s*: all records, and the bytes of their values before compression, divided by the window. The
topics' records fill the batches to the byte, so that no sink waits for a time limit at the end. *Peak RSS*: the
kernel's VmHWM, over the whole life. *2 processes*: one group, 4 partitions each, the window from the later assignment,
sums over both. *Loop's block*: from the process's own histogram `ticklake_consumer_loop_block_seconds`, the window's
share of it: the bucket's upper bound, and the 5 ms by which a block may be longer than it was seen to be.

*Everything on*: each record validated as one JSON value, SHA-256 of the lines, CRC-32, exactly-once protocol. *Without
validation and hash* is no setting: `bench/unvalidated.py` takes both out, to compare with sinks that do neither.

Kafka, the S3 server and the bench itself run on the same cores: for a million of the plain quotes the broker took
{kafka} and the S3 server {s3} CPU-seconds beside the sink.{ceiling}

*Overlap*: of the CPU time of the plain gzip case the event loop's thread took {loop} % (fetching, deciding, putting);
the rest is the threads' (reading, validating, hashing, compressing; the last two let go of the GIL). On average {busy}
threads were running at once.

The others are in `bench/baselines/`: `stock_consumer.py` and `confluent_consumer.py` are the loops that careful people
write, with the same limits, without exactly-once, validation or hash; in the zombie test with which the products' lines
were counted they lost up to 72,755 and 157,466 of 500,000 (from the same source, not run again).
ConsumerPerformance is Kafka's own tool with its script's JVM options: the rate is its own, over its time of fetching;
from its CPU time that of a run over one record is taken off, for a JVM's start is none of the reading."""
